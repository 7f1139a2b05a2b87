"""From the runs of a study to its numbers: scores, means over seeds, and interquartile means over tasks.

A score is one seed's return at a step count: the mean of the evaluation nearest to it. Nothing here depends on a clock,
so the same finished runs give the same numbers.

Interquartile mean and stratified bootstrap are those of Agarwal et al., "Deep Reinforcement Learning at the Edge of
the Statistical Precipice" (NeurIPS 2021), computed by scipy, which gives them in a line each and is small; rliable, the
authors' own library, would bring pandas, seaborn, statsmodels and arch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from actors.tasks import is_factory
from cluster.curves import surviving
from cluster.studies.grid import Cell
from cluster.studies.runner import finished
from cluster.studies.study import Study
from common.config import Config
from common.run_folder import RunFolder

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Place(NamedTuple):
    """What the seeds of one table entry have in common; `x` is the axis' value, if the study has an axis."""

    env_steps: int
    rotation: float
    task: str
    x: float | None
    variant: str


class Score(NamedTuple):
    """One seed's return; `evaluated_at` is the step count of its evaluation."""

    place: Place
    seed: int
    evaluated_at: int
    value: float


class Entry(NamedTuple):
    """Mean and standard deviation (n − 1) of the scores of one place; no deviation with a single seed."""

    mean: float
    std: float | None
    seeds: int


class Aggregate(NamedTuple):
    """Interquartile mean over tasks and seeds, and its bootstrap interval, where every task has at least two seeds."""

    iqm: float
    low: float | None
    high: float | None
    runs: int


@dataclass(frozen=True)
class Results:
    """All numbers of a study.

    Attributes:
        unfinished: names of the cells whose run has not finished, or not begun.
        env_steps: step counts that are compared.
        rotations: evaluation angles that are compared, in degrees.
        scores: of every seed that was evaluated near a step count.
        entries: means over seeds.
        aggregates: by step count, angle, axis value and variant.
        aggregated_tasks: over which tasks, by step count, angle and axis value: those for which every variant that
            has a score anywhere there has one.
        scaled: whether aggregated returns are divided by an episode's control steps, the highest return there can be.
    """

    unfinished: list[str]
    env_steps: tuple[int, ...]
    rotations: tuple[float, ...]
    scores: list[Score]
    entries: dict[Place, Entry]
    aggregates: dict[tuple[int, float, float | None, str], Aggregate]
    aggregated_tasks: dict[tuple[int, float, float | None], list[str]]
    scaled: bool


def read_results(study: Study, grid: list[Cell], out: Path) -> Results:
    """Reads the run folders that are there.

    Raises:
        UserError: a folder holds another run than its cell's.
    """
    steps = study.report.env_steps or (max(cell.config.env_steps for cell in grid),)
    rotations = study.report.rotations or grid[0].config.eval_rotation
    scores = [
        Score(Place(at, rotation, cell.config.task, cell.x, cell.variant), cell.config.seed, *found)
        for at in steps
        for rotation in rotations
        for cell in grid
        if (found := _score(RunFolder(cell.folder(out)), cell.config, at, rotation)) is not None
    ]
    limits = {cell.config.environment.time_limit for cell in grid}
    scaled = len(limits) == 1 and not any(is_factory(task) for task in study.tasks)
    scale = limits.pop() if scaled else 1
    by_place = _grouped(scores)
    aggregates: dict[tuple[int, float, float | None, str], Aggregate] = {}
    aggregated_tasks = {}
    for at in steps:
        for rotation in rotations:
            for x in study.axis.values or (None,):
                here = [place for place in by_place if (place.env_steps, place.rotation, place.x) == (at, rotation, x)]
                variants = [name for name in study.variants if any(place.variant == name for place in here)]
                tasks = [
                    task
                    for task in study.tasks
                    if variants and all(Place(at, rotation, task, x, variant) in by_place for variant in variants)
                ]
                aggregated_tasks[at, rotation, x] = tasks
                for variant in variants if tasks else ():
                    values = [np.array(by_place[Place(at, rotation, task, x, variant)]) for task in tasks]
                    aggregates[at, rotation, x, variant] = aggregate([each / scale for each in values])
    return Results(
        unfinished=[cell.name for cell in grid if not finished(cell, out)],
        env_steps=steps,
        rotations=rotations,
        scores=scores,
        entries={place: entry(values) for place, values in by_place.items()},
        aggregates=aggregates,
        aggregated_tasks=aggregated_tasks,
        scaled=scaled,
    )


def entry(values: list[float]) -> Entry:
    """Mean and standard deviation over seeds."""
    return Entry(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


def aggregate(scores: list[NDArray[np.float64]]) -> Aggregate:
    """Interquartile mean of all scores and its percentile interval under a bootstrap that draws seeds within tasks.

    Args:
        scores: one array (seeds,) a task; tasks may have different numbers of seeds.
    """
    everything = np.concatenate(scores)
    iqm = float(interquartile_mean(everything))
    if min(map(len, scores)) < 2:
        return Aggregate(iqm, None, None, len(everything))
    interval = stats.bootstrap(
        scores,
        lambda *drawn, axis: interquartile_mean(np.concatenate(drawn, axis=-1), axis=axis),
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Aggregate(iqm, float(interval.low), float(interval.high), len(everything))


def interquartile_mean(values: NDArray[np.float64], axis: int = -1) -> Any:
    """The mean without the lowest and the highest quarter (rounded down)."""
    return stats.trim_mean(values, 0.25, axis=axis)


def _score(folder: RunFolder, config: Config, env_steps: int, rotation: float) -> tuple[int, float] | None:
    """Step count and mean return of the evaluation nearest to a step count; none within half an evaluation interval."""
    records: Iterable[dict[str, Any]] = folder.evaluations()
    steps, means = surviving([record for record in records if record["rotation_degrees"] == rotation], "mean")
    if not len(steps):
        return None
    nearest = int(np.argmin(np.abs(steps - env_steps)))  # the earlier of two alike
    reach = (config.eval_every or config.env_steps) / 2
    if abs(steps[nearest] - env_steps) > reach or math.isnan(means[nearest]):
        return None
    return int(steps[nearest]), float(means[nearest])


def _grouped(scores: Iterable[Score]) -> dict[Place, list[float]]:
    groups: dict[Place, list[float]] = defaultdict(list)
    for score in scores:
        groups[score.place].append(score.value)
    return dict(groups)
