"""The environment that every actor steps: pixels, actions in ±1, action repeat and our own time limit."""

from __future__ import annotations

from typing import Any, Protocol

import dm_env
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from actors.factory import FactorySource
from actors.rendering import configure
from actors.suite import SuiteSource
from actors.tasks import is_factory
from common.config import EnvironmentConfig
from common.sequence import IMAGE_SHAPE

UNBOUNDED = 1e9
"""Bounds beyond this are none: DMControl reports 1e10 for an actuator without control range."""
LARGEST_REWARD = float(np.finfo(np.float32).max)


class Source(Protocol):
    """What a `PixelEnvironment` wraps: native actions, single control steps, a picture when asked for one."""

    def action_spec(self) -> specs.Array:
        """Native bounds of the action, shape (A,)."""

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""

    def step(self, action: NDArray[np.float64]) -> dm_env.TimeStep:
        """One control step."""

    def image(self) -> NDArray[np.uint8]:
        """A picture of the present state, (64, 64, 3)."""

    def renderer(self) -> str:
        """OpenGL's name for what draws; empty when unknown."""

    def close(self) -> None:
        """Frees everything."""


def make_environment(task: str, config: EnvironmentConfig, seed: int) -> PixelEnvironment:
    """Builds a task: a DMControl `domain_task`, or `package.module:factory` of any dm_env environment.

    Chooses this process's OpenGL backend on the way. The same seed gives the same episodes.

    Raises:
        UserError: there is no such task, no OpenGL for it, or the factory is not as it must be.
    """
    if not is_factory(task) or config.gl != "auto":
        configure(config.gl)
    source: Source = FactorySource(task, seed) if is_factory(task) else SuiteSource(task, config.rendering, seed)
    return PixelEnvironment(source, config.action_repeat, config.time_limit)


class PixelEnvironment(dm_env.Environment):
    """dm_env protocol with observation `{"image": uint8 (64, 64, 3)}` and actions float32 (A,) in ±1.

    A step is `action_repeat` control steps with their rewards summed, fewer where the episode ends, and one picture.
    After `time_limit` control steps the episode ends with discount 1; only a true termination has discount 0.
    """

    def __init__(self, source: Source, action_repeat: int, time_limit: int) -> None:
        self._source = source
        self._action_repeat = action_repeat
        self._time_limit = time_limit
        self._control_steps = 0
        self._over = True
        spec = source.action_spec()
        self._shape = spec.shape
        self._low = np.broadcast_to(getattr(spec, "minimum", -np.inf), spec.shape).astype(np.float64)
        self._high = np.broadcast_to(getattr(spec, "maximum", np.inf), spec.shape).astype(np.float64)
        self._bounded = (self._low > -UNBOUNDED) & (self._high < UNBOUNDED)

    def reset(self) -> dm_env.TimeStep:
        """Begins an episode."""
        self._control_steps = 0
        self._over = False
        self._source.reset()
        return dm_env.restart(self._observation())

    def step(self, action: Any) -> dm_env.TimeStep:
        """Repeats an action (A,), clipped to ±1; begins an episode instead when the last one is over.

        Raises:
            ValueError: the action is not finite or has another shape, or the reward is not finite as float32.
        """
        if self._over:
            return self.reset()
        native = self._to_native(np.asarray(action, np.float64))
        reward, discount = 0.0, 1.0
        for _ in range(min(self._action_repeat, self._time_limit - self._control_steps)):
            time_step = self._source.step(native)
            self._control_steps += 1
            reward += float(time_step.reward)
            if time_step.last():
                self._over = True
                discount = 0.0 if time_step.discount == 0 else 1.0
                break
        if not abs(reward) <= LARGEST_REWARD:
            raise ValueError(f"the environment gave the reward {reward}, which is no finite float32")
        self._over = self._over or self._control_steps >= self._time_limit
        kind = dm_env.StepType.LAST if self._over else dm_env.StepType.MID
        return dm_env.TimeStep(kind, reward, discount, self._observation())

    def action_spec(self) -> specs.BoundedArray:
        """Float32 (A,) in ±1."""
        return specs.BoundedArray(self._shape, np.float32, -1.0, 1.0, name="action")

    def observation_spec(self) -> dict[str, specs.BoundedArray]:
        """The image, uint8 (64, 64, 3)."""
        return {"image": specs.BoundedArray(IMAGE_SHAPE, np.uint8, 0, 255, name="image")}

    def renderer(self) -> str:
        """OpenGL's own name for what draws, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`; empty when unknown."""
        return self._source.renderer()

    def close(self) -> None:
        """Frees the simulation and its OpenGL context; the environment cannot be used afterwards."""
        self._source.close()

    def _observation(self) -> dict[str, NDArray[np.uint8]]:
        return {"image": self._source.image()}

    def _to_native(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        if action.shape != self._shape or not np.isfinite(action).all():
            raise ValueError(f"actions are {self._shape} finite numbers, not {action}")
        action = np.clip(action, -1.0, 1.0)
        native = action.copy()
        low, high = self._low[self._bounded], self._high[self._bounded]
        native[self._bounded] = low + 0.5 * (action[self._bounded] + 1.0) * (high - low)
        return native
