"""An environment with ready-made frames and no rendering: what is left to measure is the machine around it."""

from __future__ import annotations

import functools

import dm_env
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

FRAMES = 64
STEPS = 1000
ACTION_SIZE = 6


@functools.cache
def frames() -> NDArray[np.uint8]:
    """Noise, uint8 (FRAMES, 64, 64, 3), once a process: a hundred environments in it hold no more than one."""
    return np.random.default_rng(0).integers(0, 256, (FRAMES, 64, 64, 3), np.uint8)


class ReadyFrames(dm_env.Environment):
    """Plays the same frames over and over, whatever the action; the seed says which is first.

    An episode has 1,000 steps.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._first = seed % FRAMES
        self._step = 0

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        self._step = 0
        return dm_env.restart(self._observation())

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        """The next frame; the reward is noise."""
        self._step += 1
        observation = self._observation()
        reward = float(self._random.random())
        if self._step >= STEPS:
            return dm_env.truncation(reward, observation)
        return dm_env.transition(reward, observation)

    def action_spec(self) -> specs.BoundedArray:
        """Six actions in ±1, as a walker has."""
        return specs.BoundedArray((ACTION_SIZE,), np.float32, -1.0, 1.0)

    def observation_spec(self) -> dict[str, specs.BoundedArray]:
        """One image."""
        return {"image": specs.BoundedArray((64, 64, 3), np.uint8, 0, 255)}

    def _observation(self) -> dict[str, NDArray[np.uint8]]:
        return {"image": frames()[(self._first + self._step) % FRAMES]}


def make(seed: int) -> ReadyFrames:
    """The factory that `--task cluster.benchmarks.ready_frames:make` names."""
    return ReadyFrames(seed)
