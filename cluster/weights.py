"""Weights that were published: what collectors act with and evaluations name."""

from __future__ import annotations

from typing import NamedTuple


class Weights(NamedTuple):
    """One version of the policy's weights.

    Attributes:
        version: counts publications; never goes back, in resumed runs neither.
        updates: learner updates behind them.
        handle: what roles can read them from.
        published_at: when, on this process's monotonic clock.
    """

    version: int
    updates: int
    handle: object
    published_at: float
