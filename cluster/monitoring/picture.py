"""A dashboard as a picture: the panels of its JSON, drawn from what a Prometheus holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import matplotlib.dates as dates
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from cluster.monitoring.dashboards import Dashboard, Panel, legend
from cluster.monitoring.prometheus import Line, query_range
from common.errors import UserError

POINTS = 240
GRID_COLUMNS = 24
INCHES_A_COLUMN, INCHES_A_ROW = 0.62, 0.38
MOST_NAMES = 12
DAY = 86400.0

_Times = TypeVar("_Times", float, NDArray[np.float64])


def draw(dashboard: Dashboard, url: str, out: Path, hours: float) -> None:
    """Draws every panel over the last hours, or over those of them that there is data of.

    Args:
        dashboard: what to draw.
        url: of the Prometheus.
        out: .png, .svg or .pdf.
        hours: how far back.

    Raises:
        UserError: the Prometheus does not answer or has no data, or the file cannot be written.
    """
    end = time.time()
    start = max(end - hours * 3600, _begin(dashboard, url, end, hours))
    step = max(1.0, (end - start) / POINTS)
    rows = max(y + height for _, y, _, height in (panel.place for panel in dashboard.panels))
    figure = plt.figure(figsize=(GRID_COLUMNS * INCHES_A_COLUMN, rows * INCHES_A_ROW), layout="constrained")
    figure.suptitle(dashboard.title, x=0.01, ha="left", fontweight="bold")
    grid = figure.add_gridspec(rows, GRID_COLUMNS)
    for panel in dashboard.panels:
        x, y, width, height = panel.place
        axes = figure.add_subplot(grid[y : y + height, x : x + width])
        series = [
            (legend(query.legend, line.labels), with_gaps(line, step))
            for query in panel.queries
            for line in query_range(url, query.expression, start, end, step)
        ]
        _panel(axes, panel, series)
        axes.set_xlim(_date(start), _date(end))
    try:
        figure.savefig(out, dpi=100)
    except (OSError, ValueError) as error:
        raise UserError(f"--out {out}: {error}") from None
    finally:
        plt.close(figure)


def with_gaps(line: Line, step: float) -> Line:
    """A series that is interrupted where samples are missing: a NaN in the middle of each gap."""
    before = np.flatnonzero(np.diff(line.times) > 1.5 * step)
    middles = (line.times[before] + line.times[before + 1]) / 2
    times, values = (np.insert(part, before + 1, new) for part, new in ((line.times, middles), (line.values, np.nan)))
    return Line(line.labels, times, values)


def _begin(dashboard: Dashboard, url: str, end: float, hours: float) -> float:
    """When the first of the dashboard's data within the last hours was seen."""
    span = hours * 3600
    firsts = [
        line.times[0]
        for panel in dashboard.panels
        for query in panel.queries
        for line in query_range(url, query.expression, end - span, end, max(1.0, span / POINTS))
    ]
    if not firsts:
        raise UserError(f"{url} has no data of such runs within the last {hours:g} hours")
    return float(min(firsts))


def _panel(axes: Axes, panel: Panel, series: list[tuple[str, Line]]) -> None:
    axes.set_title(panel.title, loc="left", fontsize=9)
    for name, line in series:
        axes.plot(_date(line.times), line.values, label=name, linewidth=1.2)
    if panel.low is not None:
        nothing = all((np.nan_to_num(line.values) <= panel.low).all() for _, line in series)
        axes.set_ylim(bottom=panel.low, top=panel.low + 1 if nothing else None)
    if 0 < len(series) <= MOST_NAMES:
        axes.legend(fontsize=6, frameon=False, loc="best", ncols=1 + (len(series) > MOST_NAMES // 2))
    if not series:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color="grey")
        axes.set_yticks([])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: FORMATS.get(panel.unit, _short)(value)))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=3, maxticks=7))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _date(seconds: _Times) -> _Times:
    return seconds / DAY  # matplotlib's dates are days since 1970


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {letter}"
    return f"{value:.4g}"


def _bytes(value: float) -> str:
    for size, letter in ((2**30, "Gi"), (2**20, "Mi"), (2**10, "Ki")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}B"
    return f"{value:.3g} B"


FORMATS: dict[str, Callable[[float], str]] = {
    "short": _short,
    "bytes": _bytes,
    "s": lambda value: f"{value:.3g} s",
    "percentunit": lambda value: f"{100 * value:.3g} %",
}
"""How Grafana's units read; all that the dashboards use."""
