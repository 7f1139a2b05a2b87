"""`dreamfleet plot`: learning curves of one or more runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cluster.flags import parse
from cluster.plots import plot_runs


@dataclass(frozen=True)
class PlotArguments:
    """Draws learning curves by task and algorithm, seeds as a band, published scores as dashed lines."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path = Path("curves.png")
    """Picture to write (.png, .svg or .pdf)."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(PlotArguments, "plot", args)
    plot_runs(arguments.runs, arguments.out)
    print(arguments.out)
    return 0
