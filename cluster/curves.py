"""From run folders to learning curves: one per task, algorithm and evaluation angle, with seeds joined to a band."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.run_folder import RunFolder

_TRAINING_BINS = 60


class CurveKey(NamedTuple):
    """Runs that differ in nothing here are repetitions of one experiment."""

    task: str
    algorithm: str
    objective: str
    preset: str
    rotation: float
    variant: str = ""
    """Name in a study, where it stands for algorithm, objective and preset."""
    offline: bool = False
    """Whether the runs collected nothing."""


@dataclass(frozen=True)
class Curve:
    """Evaluation returns over environment steps, joined over the runs of one key.

    Attributes:
        key: what the runs have in common.
        runs: how many they are.
        seeds: how many different seeds they had.
        env_steps: float (P,), where runs were evaluated.
        mean: float (P,), over the runs that reached the point.
        low: float (P,), the worst of them.
        high: float (P,), the best of them.
        training: float (2, Q), environment steps and mean return of training episodes, whose images are never rotated;
            Q = 0 at an angle, or when none were recorded.
    """

    key: CurveKey
    runs: int
    seeds: int
    env_steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    training: NDArray[np.float64]


class _Run(NamedTuple):
    seed: int
    evaluations: NDArray[np.float64]  # (2, P): environment steps, mean return
    training: NDArray[np.float64]  # (2, Q)


def read_curves(run_dirs: Iterable[Path], variants: Mapping[Path, str] | None = None) -> list[Curve]:
    """Reads run folders and joins their repetitions, sorted by key.

    Args:
        run_dirs: run folders.
        variants: what a study calls them, by folder; runs of different names are no repetitions.

    Raises:
        UserError: a folder is no run folder or holds no evaluation, or no folder was given.
    """
    runs: dict[CurveKey, list[_Run]] = defaultdict(list)
    for path in {path.resolve(): path for path in run_dirs}.values():
        folder = RunFolder(path)
        config = folder.load_config()
        episodes = surviving(folder.metrics(), "episode_return")
        by_rotation = defaultdict(list)
        for record in folder.evaluations():
            by_rotation[float(record["rotation_degrees"])].append(record)
        if not by_rotation:
            raise UserError(f"{path} holds no evaluations yet: nothing to plot")
        for rotation, records in by_rotation.items():
            training = episodes if rotation == 0 else np.empty((2, 0))
            what = (config.task, config.algorithm, config.objective, config.preset)
            key = CurveKey(*what, rotation, (variants or {}).get(path, ""), bool(config.offline))
            runs[key].append(_Run(config.seed, surviving(records, "mean"), training))
    if not runs:
        raise UserError("no run folders were named: nothing to plot")
    return [_join(key, runs[key]) for key in sorted(runs)]


def surviving(records: Iterable[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """Points (2, P) of one value, ascending in environment steps; records without it are passed over.

    A run that went back to a checkpoint repeats steps; what it wrote about them before is dropped.
    """
    points: list[tuple[float, float]] = []
    for record in records:
        if record.get(name) is None:
            continue
        while points and points[-1][0] >= record["env_steps"]:
            points.pop()
        points.append((record["env_steps"], record[name]))
    return np.array(points, np.float64).reshape(-1, 2).T


def _join(key: CurveKey, runs: Sequence[_Run]) -> Curve:
    # Seeds are evaluated at slightly different steps; the longest run's points are the ones that all are read at.
    grid = max((run.evaluations[0] for run in runs), key=lambda steps: steps[-1])  # (P,)
    slack = np.median(np.diff(grid)) / 2 if len(grid) > 1 else np.inf
    returns = np.full((len(runs), len(grid)), np.nan)
    for row, (_, (steps, values), _) in zip(returns, runs, strict=True):
        reached = (grid >= steps[0] - slack) & (grid <= steps[-1] + slack)
        row[reached] = np.interp(grid[reached], steps, values)
    return Curve(
        key=key,
        runs=len(runs),
        seeds=len({run.seed for run in runs}),
        env_steps=grid,
        mean=np.nanmean(returns, axis=0),
        low=np.nanmin(returns, axis=0),
        high=np.nanmax(returns, axis=0),
        training=_binned([run.training for run in runs]),
    )


def _binned(runs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Means over all runs in equal bins of environment steps, so that many noisy episodes read as one line."""
    count = min(_TRAINING_BINS, max(run.shape[1] for run in runs))
    steps, values = np.concatenate(runs, axis=1)
    if not count:
        return np.empty((2, 0))
    edges = np.linspace(steps.min(), steps.max(), count + 1)
    bins = np.clip(np.digitize(steps, edges) - 1, 0, count - 1)
    sizes = np.bincount(bins, minlength=count)
    sums = np.stack([np.bincount(bins, weights=axis, minlength=count) for axis in (steps, values)])
    return sums[:, sizes > 0] / sizes[sizes > 0]
