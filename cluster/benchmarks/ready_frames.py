"""An environment with ready-made frames and no rendering: what is left to measure is the machine around it."""

from __future__ import annotations

import dm_env
import numpy as np
from dm_env import specs

FRAMES = 64
STEPS = 1000
ACTION_SIZE = 6


class ReadyFrames(dm_env.Environment):
    """Plays the same frames over and over, whatever the action; an episode has 1,000 steps."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._frames = self._random.integers(0, 256, (FRAMES, 64, 64, 3), np.uint8)
        self._step = 0

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        self._step = 0
        return dm_env.restart({"image": self._frames[0]})

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        """The next frame; the reward is noise."""
        self._step += 1
        observation = {"image": self._frames[self._step % FRAMES]}
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


def make(seed: int) -> ReadyFrames:
    """The factory that `--task cluster.benchmarks.ready_frames:make` names."""
    return ReadyFrames(seed)
