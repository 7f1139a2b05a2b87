"""A part of the windows from the newest ones: how stale data matters."""

from __future__ import annotations

import numpy as np

from replay_service.samplers.sampler import Starts
from replay_service.samplers.uniform_step import UniformStep


class Recent(UniformStep):
    """A mixture: with probability f uniform over the newest N windows held, else uniform over all W that are held.

    Windows are ordered by the chunk in which they start, as chunks were inserted, then by the row in it. The newest
    min(N, W) in this order have probability f / min(N, W) + (1 − f) / W each, the others (1 − f) / W.

    Args:
        fraction: f.
        newest: N.
    """

    def __init__(self, fraction: float, newest: int) -> None:
        super().__init__()
        self._fraction = fraction
        self._newest = newest

    def draw(self, count: int, rng: np.random.Generator) -> Starts:
        """Draws from the mixture."""
        reach = np.where(rng.random(count) < self._fraction, min(self._newest, self.windows), self.windows)
        return self._starts.find(self.windows - reach + rng.integers(reach))  # the newest have the last ticks
