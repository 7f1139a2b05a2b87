"""Every process's memory over time, as a figure and as the lines of a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from cycler import cycler

from cluster.benchmarks.sampler import growth

Series = Mapping[str, list[tuple[float, int]]]


def draw(series: Series, title: str, file: Path) -> None:
    """One line a process, the largest first in the legend."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5), layout="constrained")
    axes.set_prop_cycle(cycler(linestyle=["-", "--", ":"]) * cycler(color=pyplot.get_cmap("tab10").colors))
    for name, held in sorted(series.items(), key=lambda item: -item[1][-1][1]):
        axes.plot([seconds / 60 for seconds, _ in held], [bytes_ / 1e6 for _, bytes_ in held], label=name, lw=1.2)
    axes.set(title=title, xlabel="minutes", ylabel="MB of its own", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.savefig(file, dpi=110)


def table(series: Series) -> str:
    """Markdown: what each process held after a quarter of the time and at the end, and its slope since half of it."""
    lines = ["| process | second quarter, MB | last quarter, MB | slope of the last half, MB/h |", "|---|---|---|---|"]
    for name, held in sorted(series.items(), key=lambda item: -item[1][-1][1]):
        grown = growth(held)
        lines.append(f"| {name} | {grown.early / 1e6:.1f} | {grown.late / 1e6:.1f} | {grown.per_hour / 1e6:+.1f} |")
    return "\n".join(lines)
