"""The interface between the index of windows and what draws from it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from replay_service.fragments import Fragment

Starts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where windows start: sequence numbers of chunks and rows in them, int64 (n,) each."""


class Sampler:
    """Draws windows; the index tells it which there are. Everything takes O(log chunks) or less."""

    @property
    @abstractmethod
    def windows(self) -> int:
        """Windows that can be drawn now."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator) -> Starts:
        """Draws windows independently, with replacement; there must be one."""

    def counted(self, sequence: int, starts: int) -> None:
        """So many windows start in a chunk: in the newest, perhaps none, or in one before it whose episode goes on."""

    def evicted(self, sequence: int) -> None:
        """The oldest chunk is gone, and with it the windows that start in it."""

    def finished(self, fragment: Fragment) -> None:
        """A fragment is finished, or is and has lost its first chunk."""

    def prioritise(self, sequences: NDArray[np.int64], losses: NDArray[np.float32]) -> None:
        """Takes in what the model lost on windows that were drawn.

        Args:
            sequences: of the chunks in which they start, (n,); those no longer held are passed over.
            losses: (n,), in nats.
        """
