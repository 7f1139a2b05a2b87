"""What an actor asks of a policy, and the policy of version 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class ActingPolicy(Protocol):
    """The part of `learner.policy.Policy` that collecting and evaluating need."""

    def act(
        self,
        image: NDArray[np.uint8],
        state: Any = None,
        *,
        is_first: NDArray[np.bool_] | None = None,
        training: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        """Actions (E, A) in ±1 for images (E, 64, 64, 3), and the state for the next call."""

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Copies weights in place."""

    def reseed(self, seed: int) -> None:
        """Starts the policy's random stream anew, so that what follows depends on the seed alone."""


class UniformPolicy:
    """Acts uniformly at random: what weights version 0 means."""

    def __init__(self, action_size: int, seed: int) -> None:
        self._action_size = action_size
        self._random = np.random.default_rng(seed)

    def act(
        self,
        image: NDArray[np.uint8],
        state: Any = None,
        *,
        is_first: NDArray[np.bool_] | None = None,
        training: bool = False,
    ) -> tuple[NDArray[np.float32], None]:
        """Actions float32 (E, A) for images (E, 64, 64, 3); there is no state."""
        return self._random.uniform(-1.0, 1.0, (len(image), self._action_size)).astype(np.float32), None
