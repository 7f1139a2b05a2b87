"""The learning-curve figure: a panel a task and angle, a colour an algorithm, seeds as a band."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator

from cluster.curves import Curve, CurveKey, read_curves
from cluster.look import COLOURS, GREY, look
from cluster.published import PublishedCurve, published_curves
from common.errors import UserError

_MARKERS = "os^D"
_DASHES = (0, (4, 2))
_PANEL_INCHES = (4.6, 3.1)
_FEW_POINTS = 12  # a line through so few evaluations shows where they are
_LABEL_GAP = 0.055  # of a panel's height: one line of a label
_SPREADING_ROUNDS = 50  # ten labels in one place are apart after half as many


class _Style(NamedTuple):
    label: str
    colour: str
    marker: str


def plot_runs(run_dirs: Sequence[Path], out: Path, published: bool = True) -> None:
    """Draws evaluation returns over environment steps and writes the figure.

    Runs of one task, algorithm, objective, preset and evaluation angle are repetitions: their mean is a line, their
    minimum and maximum a band. Training returns are a faint line. Published scores of the task are dashed.

    Args:
        run_dirs: run folders, in any order.
        out: the figure; its suffix says the format (png, pdf, svg, …).
        published: whether to show published scores.

    Raises:
        UserError: a folder is no run folder or has no evaluation, or the suffix is no picture format.
    """
    draw_curves(read_curves(run_dirs), out, published=published)


def draw_curves(
    curves: Sequence[Curve],
    out: Path,
    x_label: str = "environment steps",
    published: bool = True,
) -> None:
    """Draws curves as `plot_runs` does.

    Args:
        curves: at least one.
        out: the figure.
        x_label: what the curves' `env_steps` are.
        published: whether to dash what was published on a panel's task.

    Raises:
        UserError: the suffix is no picture format.
    """
    panels = sorted({(curve.key.task, curve.key.rotation) for curve in curves})
    columns = len(panels) if len(panels) <= 3 else min(4, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    with look():
        figure = Figure(
            figsize=(_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows + 0.5),
            layout=ConstrainedLayoutEngine(hspace=0.06, wspace=0.04),
        )
        if out.suffix.lstrip(".").lower() not in figure.canvas.get_supported_filetypes():
            raise UserError(f"{out} names no picture format; end it in .png, .pdf or .svg")
        axes = figure.subplots(rows, columns, squeeze=False)
        styles = _styles(curves)
        any_published = False
        for index, (task, rotation) in enumerate(panels):
            axis = axes.flat[index]
            shown = [curve for curve in curves if (curve.key.task, curve.key.rotation) == (task, rotation)]
            scores = published_curves(task, rotation, {curve.key.algorithm for curve in shown}) if published else []
            _draw_panel(axis, shown, scores, styles)
            axis.set_title(task.rpartition(":")[2] + (f", images rotated ±{rotation:g}°" if rotation else ""))
            if index % columns == 0:
                axis.set_ylabel("return")
            if index + columns >= len(panels):
                axis.set_xlabel(x_label)
            any_published = any_published or bool(scores)
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        handles = _legend(curves, styles, any_published)
        longest = max(len(str(handle.get_label())) for handle in handles)
        fitting = int(_PANEL_INCHES[0] * columns / (0.7 + 0.068 * longest))  # inches of a handle and of a letter
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), fitting), frameon=False)
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=160)


def _styles(curves: Sequence[Curve]) -> dict[CurveKey, _Style]:
    """Equal labels look equal in every panel; the markers go on telling apart when the colours repeat."""
    presets = {curve.key.preset for curve in curves}
    labels = {curve.key: _label(curve.key, name_preset=len(presets) > 1) for curve in curves}
    markers = (marker for marker in cycle(_MARKERS) for _ in COLOURS)
    looks = dict(zip(sorted(set(labels.values())), zip(cycle(COLOURS), markers, strict=False), strict=False))
    return {key: _Style(label, *looks[label]) for key, label in labels.items()}


def _label(key: CurveKey, name_preset: bool) -> str:
    if key.variant:
        return key.variant
    parts = [key.algorithm]
    if key.objective != "reconstruction":
        parts.append(key.objective)
    if name_preset:
        parts.append(key.preset)
    if key.offline:
        parts.append("offline")
    return " · ".join(parts)


def _draw_panel(
    axis: Axes, curves: Sequence[Curve], published: Sequence[PublishedCurve], styles: dict[CurveKey, _Style]
) -> None:
    last_step = max(curve.env_steps[-1] for curve in curves)
    axis.set_xlim(0, last_step or 1)
    ends = [_draw_published(axis, scores, last_step) for scores in published]
    for curve in curves:
        _, colour, marker = styles[curve.key]
        axis.plot(*curve.training, color=colour, alpha=0.3, linewidth=0.9)
        if curve.runs > 1:
            axis.fill_between(curve.env_steps, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        shape = marker if len(curve.env_steps) <= _FEW_POINTS else ""
        axis.plot(
            curve.env_steps,
            curve.mean,
            color=colour,
            linewidth=1.7,
            marker=shape,
            markersize=3.5,
            clip_on=False,
            zorder=3,
        )
    low, high = axis.dataLim.intervaly
    bottom = min(0.0, low)
    axis.set_ylim(bottom, high + 0.05 * (high - bottom) or 1.0)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.yaxis.set_major_locator(MaxNLocator(6))
    _label_ends(axis, [end for end in ends if end is not None])


def _draw_published(axis: Axes, published: PublishedCurve, last_step: float) -> tuple[str, float] | None:
    """Draws what lies inside the axis; returns its name and last height, or none where nothing of it lies inside."""
    if not published.env_steps:
        (level,) = published.mean
        axis.axhline(level, color=GREY, alpha=0.6, linewidth=0.7, linestyle=_DASHES)
        return published.label, level
    first, end = published.env_steps[0], min(published.env_steps[-1], last_step)
    if first > last_step:
        return None
    known = np.array([step for step in published.env_steps if step <= end])
    line = np.union1d(known, [end])
    mean = np.interp(line, published.env_steps, published.mean)
    axis.plot(line, mean, color=GREY, linewidth=1.2, linestyle=_DASHES)
    if len(published.env_steps) <= _FEW_POINTS:
        axis.plot(known, np.interp(known, published.env_steps, published.mean), "o", color=GREY, markersize=3)
    # A line that ends before the right edge is still named there, with the step of its last point.
    ended = f" at {EngFormatter()(end)}" if end < last_step else ""
    return published.label + ended, float(mean[-1])


def _label_ends(axis: Axes, ends: Sequence[tuple[str, float]]) -> None:
    """Names the published scores at the right edge, pushed apart where they would lie on each other."""
    bottom, top = axis.get_ylim()
    ordered = sorted(ends, key=lambda end: end[1])
    heights = [(value - bottom) / (top - bottom) for _, value in ordered]
    for _ in range(_SPREADING_ROUNDS):
        for lower in range(len(heights) - 1):
            overlap = max(0.0, _LABEL_GAP - (heights[lower + 1] - heights[lower]))
            heights[lower] -= overlap / 2
            heights[lower + 1] += overlap / 2
    for (label, _), height in zip(ordered, heights, strict=True):
        axis.text(1.015, height, label, transform=axis.transAxes, va="center", fontsize=7, color=GREY)


def _legend(curves: Sequence[Curve], styles: dict[CurveKey, _Style], published: bool) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for label, colour, marker in sorted(set(styles.values())):
        mine = [curve for curve in curves if styles[curve.key].label == label]
        shape = marker if any(len(curve.env_steps) <= _FEW_POINTS for curve in mine) else ""
        text = f"{label}, {_repeats(mine)}"
        handles.append(Line2D([], [], color=colour, linewidth=1.7, marker=shape, markersize=3.5, label=text))
    if any(curve.runs > 1 for curve in curves):
        handles.append(Patch(color=GREY, alpha=0.2, linewidth=0, label="minimum to maximum"))
    if any(curve.training.size for curve in curves):
        handles.append(Line2D([], [], color=GREY, alpha=0.5, linewidth=0.9, label="training episodes"))
    if published:
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, linestyle=_DASHES, label="published"))
    return handles


def _repeats(curves: Sequence[Curve]) -> str:
    counts = sorted({curve.runs for curve in curves})
    noun = "seed" if all(curve.runs == curve.seeds for curve in curves) else "run"
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return f"{number} {noun}" if counts == [1] else f"mean of {number} {noun}s"
