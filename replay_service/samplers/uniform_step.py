"""Every window alike."""

from __future__ import annotations

import numpy as np

from replay_service.samplers.sampler import Sampler, Starts
from replay_service.sum_tree import SumTree


class UniformStep(Sampler):
    """Draws uniformly from all windows held."""

    def __init__(self) -> None:
        self._starts = SumTree()  # by sequence number: windows that start in the chunk

    @property
    def windows(self) -> int:
        """All of them."""
        return self._starts.total

    def draw(self, count: int, rng: np.random.Generator) -> Starts:
        """Draws windows uniformly."""
        return self._starts.find(rng.integers(self.windows, size=count))

    def counted(self, sequence: int, starts: int) -> None:
        """Weighs the chunk by its windows."""
        self._starts[sequence] = starts

    def evicted(self, sequence: int) -> None:
        """Takes the chunk's weight away."""
        self._starts.forget_before(sequence + 1)
