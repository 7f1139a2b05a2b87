"""`dreamfleet plot`: learning curves of one or more runs, or what a Prometheus has seen of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cluster.flags import parse
from cluster.monitoring import dashboards
from cluster.monitoring.picture import draw
from cluster.plots import plot_runs
from cluster.validation import choose
from common.errors import UserError


@dataclass(frozen=True)
class PlotArguments:
    """Draws learning curves by task and algorithm, seeds as a band, published scores dashed; or a dashboard."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders; of a dashboard, all runs if there are none."""
    out: Path = Path("curves.png")
    """Picture to write (.png, .svg or .pdf)."""
    published: bool = True
    """Dashed lines of published scores; without them the runs have the whole height."""
    prometheus: str = ""
    """URL of a Prometheus: a dashboard is drawn from its data, instead of learning curves."""
    dashboard: str = "overview"
    """Which of Grafana's dashboards: overview, learner, replay, actors or learning."""
    hours: float = 1.0
    """How far back the dashboard goes."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(PlotArguments, "plot", args)
    if arguments.prometheus:
        plot_dashboard(arguments)
    else:
        plot_runs(arguments.runs, arguments.out, arguments.published)
    print(arguments.out)
    return 0


def plot_dashboard(arguments: PlotArguments) -> None:
    """Draws a dashboard from a Prometheus' data of the runs, by their folders' names.

    Raises:
        UserError: there is no such dashboard, or the Prometheus has no data of such runs.
    """
    choose("dashboard", arguments.dashboard, dashboards.names())
    if not (math.isfinite(arguments.hours) and arguments.hours > 0):
        raise UserError(f"--hours must be positive, not {arguments.hours}")
    runs = "|".join(re.escape(run.resolve().name) for run in arguments.runs) or ".*"
    draw(dashboards.read(arguments.dashboard, runs), arguments.prometheus, arguments.out, arguments.hours)
