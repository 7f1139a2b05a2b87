"""The collector: environments in, chunks out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dm_env
import numpy as np
from numpy.typing import NDArray

from actors.acting import ActingPolicy, UniformPolicy
from actors.chunker import Chunker
from actors.environment import make_environment
from actors.watchdog import HangWatchdog
from common.config import Config, EnvironmentConfig
from common.errors import EnvironmentFailedError, UserError
from common.reports import CollectReport, EpisodeReport
from common.seeding import derive_seed
from common.sequence import IMAGE_SHAPE, Chunk, StreamKey
from common.usage import usage

logger = logging.getLogger(__name__)

MakeEnvironment = Callable[[str, EnvironmentConfig, int], dm_env.Environment]


class ChunkSink(Protocol):
    """Where chunks go."""

    def insert(self, chunk: Chunk) -> None:
        """Sends a chunk; may return before it is acknowledged."""

    def flush(self) -> int:
        """Waits until every chunk is acknowledged; environment steps newly stored since the last flush."""


@dataclass
class _Slot:
    """One environment and where its episode stands."""

    environment: dm_env.Environment
    chunker: Chunker
    rebuilds: int = 0
    episode_return: float = 0.0
    episode_rows: int = 0


class Collector:
    """Steps `envs_per_actor` environments together, one batched policy call a step, and sends their chunks to a sink.

    Environments and their episodes live on from call to call. Until weights arrive (version 0) actions are uniformly
    random. An environment that raises is built anew with another seed; its open episode ends at its last sent row. One
    that hangs ends the process.

    Args:
        config: the run's.
        actor: which collector this is.
        incarnation: which life of it: restarted collectors must not reuse one.
        sink: where chunks go.
        policy: acts once weights have arrived.
        make: builds environments.

    Raises:
        EnvironmentFailedError: an environment cannot be built, now or when one that raised is to be built anew.
    """

    def __init__(
        self,
        config: Config,
        actor: int,
        incarnation: int,
        sink: ChunkSink,
        policy: ActingPolicy,
        make: MakeEnvironment = make_environment,
    ) -> None:
        self._config = config
        self._identity = (actor, incarnation)
        self._sink = sink
        self._policy = policy
        self._make = make
        self._version = 0
        self._policy_state: Any = None
        self._action_repeat = config.environment.action_repeat
        count = config.envs_per_actor
        self._images = np.empty((count, *IMAGE_SHAPE), np.uint8)
        self._is_first = np.ones(count, np.bool_)
        self._failures = 0
        self._watchdog = HangWatchdog(config.environment.hang_seconds)
        first_rows = np.random.default_rng(derive_seed(config.seed, "first chunk", actor, incarnation)).integers(
            1, config.replay.chunk_rows, size=count, endpoint=True
        )
        self._slots: list[_Slot] = []
        with self._watchdog:
            for index in range(count):
                environment, first = self._build(index, rebuilds=0)
                action_size = environment.action_spec().shape[0]
                stream = StreamKey(actor, incarnation, index)
                chunker = Chunker(stream, config.replay.chunk_rows, int(first_rows[index]), action_size)
                self._slots.append(_Slot(environment, chunker))
                self._begin(index, first)
        self._uniform = UniformPolicy(action_size, derive_seed(config.seed, "uniform", actor, incarnation))

    def set_weights(self, version: int, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Acts with these weights from the next step on, unless they are no newer than the present ones."""
        if version > self._version:
            self._policy.load_weights(weights)
            self._version = version

    def collect(self, env_steps: int, seconds: float | None = None) -> CollectReport:
        """Steps all environments until a budget is used up, then waits until the sink has acknowledged every chunk.

        Args:
            env_steps: never exceeded. One step of E environments uses up E × action repeat, also where an episode ends
                within the action repeat or an environment fails; a smaller rest is left over.
            seconds: wall-clock limit for the stepping, looked at between steps; None is no limit.

        Raises:
            ValueError: the policy returned actions that are not finite.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        cost = len(self._slots) * self._action_repeat
        self._failures = 0
        rows = 0
        waited = 0.0
        episodes: list[EpisodeReport] = []
        for _ in range(env_steps // cost):
            if deadline is not None and time.monotonic() >= deadline:
                break
            chunks: list[Chunk] = []
            rows += self._step(chunks, episodes)
            started = time.monotonic()
            for chunk in chunks:
                self._sink.insert(chunk)
            waited += time.monotonic() - started
        started = time.monotonic()
        inserted = self._sink.flush()
        waited += time.monotonic() - started
        return CollectReport(
            stepped=rows * self._action_repeat,
            inserted=inserted,
            held=sum(slot.chunker.held_rows for slot in self._slots) * self._action_repeat,
            episodes=episodes,
            environment_failures=self._failures,
            weights_version=self._version,
            insert_wait_seconds=waited,
            usage=usage(),
        )

    def finish(self) -> CollectReport:
        """Sends every open partial chunk, so that nothing that was stepped is lost when the run stops here."""
        for slot in self._slots:
            chunk = slot.chunker.cut()
            if chunk is not None:
                self._sink.insert(chunk)
        return self.collect(0)

    def close(self) -> None:
        """Closes the environments; open episodes are not sent."""
        for slot in self._slots:
            slot.environment.close()
        self._watchdog.close()

    def _step(self, chunks: list[Chunk], episodes: list[EpisodeReport]) -> int:
        """Steps every environment once, adding what came of it to the lists; the number of rows that came."""
        actions = self._act()
        rows = 0
        with self._watchdog:
            for index, slot in enumerate(self._slots):
                try:
                    time_step = slot.environment.step(actions[index])
                except Exception as error:
                    self._rebuild(index, error)
                else:
                    rows += 1
                    self._take(index, actions[index], time_step, chunks, episodes)
                self._watchdog.alive()
        return rows

    def _act(self) -> NDArray[np.float32]:
        policy = self._policy if self._version > 0 else self._uniform
        actions, self._policy_state = policy.act(
            self._images, self._policy_state, is_first=self._is_first, training=True
        )
        if not np.isfinite(actions).all():  # an environment would raise too, and be rebuilt for ever
            raise ValueError(f"the policy's actions are not finite with weights version {self._version}")
        return actions

    def _take(
        self,
        index: int,
        action: NDArray[np.float32],
        time_step: dm_env.TimeStep,
        chunks: list[Chunk],
        episodes: list[EpisodeReport],
    ) -> None:
        slot = self._slots[index]
        image, is_last = time_step.observation["image"], time_step.last()
        chunk = slot.chunker.step(image, action, time_step.reward, time_step.discount, is_last)
        if chunk is not None:
            chunks.append(chunk)
        slot.episode_return += time_step.reward
        slot.episode_rows += 1
        if not is_last:
            self._images[index] = image
            self._is_first[index] = False
            return
        env_steps = slot.episode_rows * self._action_repeat
        episodes.append(EpisodeReport(slot.episode_return, env_steps, self._version))
        try:
            first = slot.environment.reset()
        except Exception as error:
            self._rebuild(index, error)
        else:
            self._begin(index, first)

    def _begin(self, index: int, time_step: dm_env.TimeStep) -> None:
        slot = self._slots[index]
        slot.episode_return = 0.0
        slot.episode_rows = 0
        slot.chunker.reset(time_step.observation["image"])
        self._images[index] = time_step.observation["image"]
        self._is_first[index] = True

    def _rebuild(self, index: int, error: Exception) -> None:
        slot = self._slots[index]
        logger.warning("environment %d of collector %d failed and is built anew: %r", index, self._identity[0], error)
        self._failures += 1
        slot.rebuilds += 1
        with contextlib.suppress(Exception):  # what is broken need not close
            slot.environment.close()
        slot.environment, first = self._build(index, slot.rebuilds)
        self._begin(index, first)

    def _build(self, index: int, rebuilds: int) -> tuple[dm_env.Environment, dm_env.TimeStep]:
        """An environment, and its first episode's first time step."""
        seed = derive_seed(self._config.seed, "environment", *self._identity, index, rebuilds)
        try:
            environment = self._make(self._config.task, self._config.environment, seed)
            self._watchdog.alive()
            return environment, environment.reset()
        except UserError:
            raise
        except Exception as error:  # as of an OpenGL that the process has lost: another one may have it
            raise EnvironmentFailedError(f"environment {index} cannot be built: {error!r}") from error
