"""How our figures look: colours, fonts and grid, the same in all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager

import matplotlib

# Okabe and Ito's palette, told apart with every common kind of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#6b6b6b"
TEXT = "#333333"


def look() -> AbstractContextManager[None]:
    """Matplotlib's settings for a figure, given back on leaving."""
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#9a9a9a",
            "axes.titlesize": 10.5,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 11,
            "legend.fontsize": 8.5,
            "axes.labelcolor": TEXT,
            "xtick.color": "#9a9a9a",
            "ytick.color": "#9a9a9a",
            "xtick.labelcolor": TEXT,
            "ytick.labelcolor": TEXT,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": "#ebebeb",
            "grid.linewidth": 0.8,
            "axes.axisbelow": True,
            "svg.fonttype": "none",
            "pdf.fonttype": 42,
        }
    )
