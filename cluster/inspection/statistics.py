"""Intervals over episodes: rows of one episode are alike, so episodes are what is drawn again (bootstrap)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

RESAMPLES = 1000
_PERCENTILES = (2.5, 97.5)
_VALUES_AT_ONCE = 2_000_000  # ranked together, so that memory stays small

Array = NDArray[np.floating]


def resample(episodes: int, seed: int) -> NDArray[np.intp]:
    """Which episodes each resample holds, drawn with replacement: (RESAMPLES, E)."""
    return np.random.default_rng(seed).integers(0, episodes, (RESAMPLES, episodes))


def mean_interval(values: Array, picks: NDArray[np.intp]) -> dict[str, Any]:
    """Mean and 95% interval over episodes.

    Args:
        values: (E, …), averaged over all but the first axis.
        picks: from `resample`.

    Returns:
        `mean`, `low`, `high`; the last two are None with a single episode.
    """
    by_episode = values.reshape(len(values), -1).mean(1, dtype=np.float64)
    return {"mean": float(by_episode.mean()), **_between(by_episode[picks].mean(1), len(values))}


def spearman_interval(first: Array, second: Array, picks: NDArray[np.intp]) -> dict[str, Any]:
    """Spearman's rank correlation of all pairs, and its 95% interval over episodes.

    Args:
        first: (E, …).
        second: of the same shape.
        picks: from `resample`.

    Returns:
        `rho`, `low`, `high`; None where they do not exist (one episode has no interval, constants no correlation).
    """
    first, second = first.reshape(len(first), -1), second.reshape(len(second), -1)
    (rho,) = _spearman(first.reshape(1, -1), second.reshape(1, -1))
    at_once = max(1, _VALUES_AT_ONCE // first.size)
    drawn = [
        _spearman(first[part].reshape(len(part), -1), second[part].reshape(len(part), -1))
        for part in np.array_split(picks, -(-len(picks) // at_once))
    ]
    return {"rho": float(rho) if np.isfinite(rho) else None, **_between(np.concatenate(drawn), len(first))}


def _spearman(first: Array, second: Array) -> Array:
    """Row by row: (R, N), (R, N) → (R,); NaN where a row is constant."""
    a, b = (rankdata(values, axis=1) for values in (first, second))
    a, b = (ranks - ranks.mean(1, keepdims=True) for ranks in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def _between(drawn: Array, episodes: int) -> dict[str, float | None]:
    drawn = drawn[np.isfinite(drawn)]
    if episodes < 2 or not drawn.size:
        return {"low": None, "high": None}
    low, high = np.percentile(drawn, _PERCENTILES)
    return {"low": float(low), "high": float(high)}
