"""Windows on which the model's loss was high are drawn more often."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from replay_service.ring import Ring
from replay_service.samplers.sampler import Sampler, Starts
from replay_service.sum_tree import SumTree

_UNITS = 2**12  # priorities are whole numbers of 1 / _UNITS, so that their sums are exact …
_MOST = 2**20 * _UNITS  # … and a thousand million windows of the highest do not overflow


class Prioritized(Sampler):
    """Draws each window in proportion to loss^α (prioritised replay: Schaul et al. 2016, eq. 1, proportional).

    The loss is kept by the chunk in which a window starts: what the model lost on the last window drawn there. Windows
    that start in one chunk share most of their rows, so that one's loss tells the others'; of each start by itself a
    replay of ten million rows, from which a batch takes fifty, would hardly ever learn it; and the trees stay as small
    as there are chunks. A chunk of which nothing was drawn counts with the highest priority that any has had so far: at
    first, and after a restart of the shard, those are all, and every window is alike. Between shards a batch is split
    as always, by their windows.

    No importance weights: the world model's loss is the plain mean over what was drawn.

    Args:
        exponent: α; 0 makes every window alike.
    """

    def __init__(self, exponent: float) -> None:
        self._exponent = exponent
        self._priority = Ring()  # by sequence number: loss^α of the chunk; 0 while nothing was drawn of it
        self._known = SumTree()  # windows × priority of chunks that have one
        self._new = SumTree()  # windows of those that have none
        self._highest = 1
        self._windows = 0

    @property
    def windows(self) -> int:
        """All of them."""
        return self._windows

    def draw(self, count: int, rng: np.random.Generator) -> Starts:
        """Draws windows in proportion to their priorities."""
        ticks = rng.integers(self._known.total + self._highest * self._new.total, size=count)
        sequences, shares = self._known.find_with(self._new, self._highest, ticks)
        priorities = self._priority.take(sequences)
        return sequences, shares // np.where(priorities, priorities, self._highest)

    def counted(self, sequence: int, starts: int) -> None:
        """Weighs the chunk by its windows and its priority."""
        self._set(sequence, starts, self._priority[sequence])

    def evicted(self, sequence: int) -> None:
        """Forgets the chunk."""
        self._windows -= self._starts(sequence)
        for ring in (self._priority, self._known, self._new):
            ring.forget_before(sequence + 1)

    def prioritise(self, sequences: NDArray[np.int64], losses: NDArray[np.float32]) -> None:
        """Sets the priorities of the chunks that are still held."""
        powers = np.fmax(losses, 0.0).astype(np.float64) ** self._exponent  # what is no number counts as 0
        priorities = np.clip(np.rint(powers * _UNITS), 1, _MOST).astype(np.int64)
        for sequence, priority in zip(sequences.tolist(), priorities.tolist(), strict=True):
            if starts := self._starts(sequence):
                self._set(sequence, starts, priority)
                self._highest = max(self._highest, priority)

    def _starts(self, sequence: int) -> int:
        return self._new[sequence] + self._known[sequence] // max(1, self._priority[sequence])

    def _set(self, sequence: int, starts: int, priority: int) -> None:
        self._windows += starts - self._starts(sequence)
        self._priority[sequence] = priority
        self._known[sequence] = starts * priority
        self._new[sequence] = 0 if priority else starts
