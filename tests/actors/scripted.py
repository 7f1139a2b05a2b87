"""Scripted environments, policies and sinks for the actors' tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dm_env
import numpy as np
from dm_env import specs
from numpy.typing import NDArray

from actors.collector import Collector
from actors.environment import PixelEnvironment
from common.config import Config, EnvironmentConfig, ReplayConfig
from common.sequence import Chunk, Rows, StreamKey


class Counting(dm_env.Environment):
    """Every pixel shows the number of control steps since the reset; the reward is the action's first entry.

    Both a dm_env environment and a `Source` to wrap.
    """

    def __init__(
        self,
        seed: int = 0,
        length: int = 10,
        last_discount: float = 1.0,
        observe: Callable[[NDArray[np.uint8]], Any] = lambda image: {"image": image},
        fails_at: int | None = None,
        fails_at_reset: int | None = None,
        spec: specs.Array | None = None,
        bad_reward: tuple[int, float] | None = None,
    ) -> None:
        self.seed = seed
        self.length = length
        self.last_discount = last_discount
        self.observe = observe
        self.fails_at = fails_at
        self.fails_at_reset = fails_at_reset
        self.bad_reward = bad_reward
        self.spec = spec or specs.BoundedArray((2,), np.float32, -1.0, 1.0)
        self.steps = 0
        self.total_steps = 0
        self.resets = 0
        self.pictures = 0
        self.actions: list[NDArray[np.float64]] = []
        self.closed = False

    def reset(self) -> dm_env.TimeStep:
        self.resets += 1
        if self.resets == self.fails_at_reset:
            raise RuntimeError("no reset")
        self.steps = 0
        return dm_env.restart(self._observation())

    def step(self, action: NDArray[np.float64]) -> dm_env.TimeStep:
        if self.total_steps == self.fails_at:
            raise RuntimeError("GL error")
        reward = float(action[0])
        if self.bad_reward and self.total_steps == self.bad_reward[0]:
            reward = self.bad_reward[1]
        self.steps += 1
        self.total_steps += 1
        self.actions.append(action)
        if self.steps == self.length:
            return dm_env.TimeStep(dm_env.StepType.LAST, reward, self.last_discount, self._observation())
        return dm_env.transition(reward, self._observation())

    def action_spec(self) -> specs.Array:
        return self.spec

    def observation_spec(self) -> specs.Array:
        return specs.Array((64, 64, 3), np.uint8)

    def image(self) -> NDArray[np.uint8]:
        self.pictures += 1
        return np.full((64, 64, 3), self.steps % 256, np.uint8)

    def renderer(self) -> str:
        return ""

    def close(self) -> None:
        self.closed = True

    def _observation(self) -> Any:
        return self.observe(np.full((64, 64, 3), self.steps % 256, np.uint8))


NOT_ZERO = {"bias": np.ones((), np.float32)}
"""Weights for `ScriptedPolicy`."""


def config(
    environments: int = 2, chunk_rows: int = 4, action_repeat: int = 1, task: str = "", time_limit: int = 1000
) -> Config:
    """A configuration with what the actors read."""
    return Config(
        task=task,
        envs_per_actor=environments,
        environment=EnvironmentConfig(action_repeat=action_repeat, time_limit=time_limit, rendering="fast"),
        replay=ReplayConfig(chunk_rows=chunk_rows),
    )


class ScriptedPolicy:
    """Acts by the image's first pixel; its state counts the frames since each environment's reset."""

    def __init__(self, action_size: int = 2) -> None:
        self.action_size = action_size
        self.weights: list[float] = []
        self.calls: list[dict[str, Any]] = []
        self.random = np.random.default_rng(0)

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        self.weights.append(float(weights["bias"]))

    def reseed(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def act(
        self,
        image: NDArray[np.uint8],
        state: Any = None,
        *,
        is_first: NDArray[np.bool_] | None = None,
        training: bool = False,
    ) -> tuple[NDArray[np.float32], Any]:
        assert is_first is not None
        frames = np.where(is_first, 1, (state if state is not None else np.zeros(len(image), int)) + 1)
        pixel = image[:, 0, 0, 0].copy()
        self.calls.append({"pixel": pixel, "is_first": is_first.copy(), "training": training, "frames": frames})
        action = np.repeat((pixel / 255.0)[:, None], self.action_size, axis=1)
        return (action + 0.001 * self.random.standard_normal(action.shape)).clip(-1, 1).astype(np.float32), frames


class ListSink:
    """Keeps chunks; flush acknowledges those since the last one."""

    def __init__(self, action_repeat: int = 1) -> None:
        self.chunks: list[Chunk] = []
        self._action_repeat = action_repeat
        self._acknowledged = 0

    def insert(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)

    def flush(self) -> int:
        fresh = self.chunks[self._acknowledged :]
        self._acknowledged = len(self.chunks)
        return sum(chunk.rows.env_steps(self._action_repeat) for chunk in fresh)

    def episodes(self) -> dict[tuple[StreamKey, int], Rows]:
        """The rows of every (stream, episode), joined; checks that indices have no gap."""
        parts: dict[tuple[StreamKey, int], list[Chunk]] = {}
        for chunk in self.chunks:
            parts.setdefault((chunk.key.stream, chunk.key.episode), []).append(chunk)
        for chunks in parts.values():
            assert [chunk.key.index for chunk in chunks] == list(range(len(chunks)))
        return {key: Rows.concatenate([chunk.rows for chunk in chunks]) for key, chunks in parts.items()}


def collector(settings: Config, sink: ListSink | None = None, policy: Any = None, **environment: Any) -> Collector:
    """A collector over `Counting` environments, wrapped as the real ones are."""

    def make(task: str, environment_config: EnvironmentConfig, seed: int) -> PixelEnvironment:
        source = Counting(seed, **environment)
        return PixelEnvironment(source, environment_config.action_repeat, environment_config.time_limit)

    return Collector(settings, 0, 0, sink or ListSink(), policy or ScriptedPolicy(), make)
