"""Weights that were published: what collectors act with and evaluations name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
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


class Lag(NamedTuple):
    """How far the collector most behind acts behind the learner.

    Attributes:
        updates: done since the weights that it acts with.
        seconds: since there have been newer ones for it to take; 0 where there are none.
    """

    updates: int
    seconds: float


class Publications:
    """What was published, as far back as a collector acts with it."""

    def __init__(self) -> None:
        self._kept: deque[Weights] = deque()

    def add(self, weights: Weights) -> None:
        """Notes newer weights."""
        self._kept.append(weights._replace(handle=None))  # which would keep them in memory

    def lag(self, acting: Iterable[int], updates: int, now: float) -> Lag:
        """The lag of the collector most behind.

        Args:
            acting: the version that each collector acts with; 0 for one that has had none.
            updates: of the learner.
            now: on the clock of `Weights.published_at`.
        """
        slowest = min(acting, default=0)
        while len(self._kept) > 1 and self._kept[1].version <= slowest:
            self._kept.popleft()
        if not self._kept:
            return Lag(0, 0.0)
        newer = [weights for weights in self._kept if weights.version > slowest and weights.updates]
        seconds = now - newer[0].published_at if newer else 0.0
        return Lag(max(0, updates - self._kept[0].updates), seconds)
