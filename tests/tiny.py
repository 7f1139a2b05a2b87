"""The suite's own task, `tests.tiny:make`: a pixel task that a small world-model agent learns in minutes.

A red square starts anywhere in x ∈ [−1, 1]; a green band stands at the left or at the right, at random. The reward of a
step is (1 − |x − target| / 2)². Without looking at the image nothing comes near the best return: standing still, going
to one side and acting at random all stay under half of it.
"""

from __future__ import annotations

from collections.abc import Callable

import dm_env
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

EPISODE_STEPS = 24
SPEED = 0.2
TARGETS = (-0.7, 0.7)
SQUARE = 12
BEST_RETURN = 22.5
"""Mean return of going straight to the target."""
RANDOM_RETURN = 10.6
"""Mean return of uniformly random actions."""


def make(seed: int) -> Tiny:
    """The environment; the same seed gives the same episodes."""
    return Tiny(seed)


class Tiny(dm_env.Environment):
    """Observation uint8 (64, 64, 3), one action in ±1, 24 steps, ends with discount 1."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.x = 0.0
        self.target = 0.0
        self._steps = EPISODE_STEPS

    def reset(self) -> dm_env.TimeStep:
        """Draws start and target."""
        self.x = float(self._random.uniform(-1.0, 1.0))
        self.target = float(self._random.choice(TARGETS))
        self._steps = 0
        return dm_env.restart(self.image())

    def step(self, action: NDArray[np.floating]) -> dm_env.TimeStep:
        """Moves the square by 0.2 × action."""
        if self._steps == EPISODE_STEPS:
            return self.reset()
        self.x = float(np.clip(self.x + SPEED * float(action[0]), -1.0, 1.0))
        self._steps += 1
        reward = (1.0 - abs(self.x - self.target) / 2.0) ** 2
        if self._steps == EPISODE_STEPS:
            return dm_env.truncation(reward, self.image())
        return dm_env.transition(reward, self.image())

    def action_spec(self) -> specs.BoundedArray:
        """One number in ±1."""
        return specs.BoundedArray((1,), np.float32, -1.0, 1.0, name="action")

    def observation_spec(self) -> specs.Array:
        """The image."""
        return specs.Array((64, 64, 3), np.uint8, name="image")

    def image(self) -> NDArray[np.uint8]:
        """The band over the whole height, the square at half height before it."""
        image = np.full((64, 64, 3), 30, np.uint8)
        image[:, _columns(self.target)] = (40, 200, 40)
        image[26 : 26 + SQUARE, _columns(self.x)] = (250, 60, 60)
        return image


def toward_target(environment: Tiny) -> NDArray[np.float32]:
    """The best action."""
    return np.array([np.clip((environment.target - environment.x) / SPEED, -1.0, 1.0)], np.float32)


def mean_return(act: Callable[[Tiny], NDArray[np.floating]], episodes: int, seed: int = 0) -> float:
    """Mean undiscounted return of acting by the environment's state, action (1,) by action."""
    environment = make(seed)
    total = 0.0
    for _ in range(episodes):
        time_step = environment.reset()
        while not time_step.last():
            time_step = environment.step(act(environment))
            total += time_step.reward
    return total / episodes


def _columns(x: float) -> slice:
    left = round((x + 1.0) / 2.0 * (64 - SQUARE))
    return slice(left, left + SQUARE)
