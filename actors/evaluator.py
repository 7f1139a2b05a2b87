"""The evaluator: episodes without exploration noise, with images as they are or rotated."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.acting import ActingPolicy, UniformPolicy
from actors.collector import MakeEnvironment
from actors.environment import make_environment
from actors.rotation import rotate
from actors.video import film, frames_per_second
from actors.watchdog import HangWatchdog
from common.config import Config
from common.errors import EnvironmentFailedError
from common.reports import EvaluationReport
from common.seeding import derive_seed
from common.sequence import IMAGE_SHAPE
from common.usage import usage

ENVIRONMENTS_AT_ONCE = 10
ATTEMPTS = 3

logger = logging.getLogger(__name__)


class Evaluator:
    """Plays whole episodes with one weights version; the same arguments give the same returns.

    Args:
        config: the run's.
        policy: acts for every version but 0.
        make: builds environments.
    """

    def __init__(self, config: Config, policy: ActingPolicy, make: MakeEnvironment = make_environment) -> None:
        self._config = config
        self._policy = policy
        self._make = make
        self._watchdog = HangWatchdog(config.environment.hang_seconds)

    def evaluate(
        self,
        version: int,
        weights: Mapping[str, NDArray[np.float32]] | None,
        episodes: int,
        rotation_degrees: float = 0.0,
        rotation_per_episode: bool = False,
        seed: int = 0,
        record: int = 0,
        encode: bool = False,
    ) -> EvaluationReport:
        """Plays episodes, each with a seed of its own, as a batch of environments.

        Args:
            version: of the weights; 0 is the uniform random policy.
            weights: None keeps the weights the policy has.
            episodes: how many.
            rotation_degrees: images are rotated by U(−this, this) before the policy sees them.
            rotation_per_episode: one angle an episode instead of one a frame.
            seed: of environments, angles and the policy's samples.
            record: so many of the first episodes are returned as the policy saw them.
            encode: they are returned as a film instead of as frames.

        Raises:
            EnvironmentFailedError: an environment raised, also when its episodes were played anew.
        """
        started = time.monotonic()
        if weights is not None:
            self._policy.load_weights(weights)
        self._policy.reseed(derive_seed(seed, "evaluation policy"))
        returns: list[float] = []
        frames: list[NDArray[np.uint8]] = []
        for first in range(0, episodes, ENVIRONMENTS_AT_ONCE):
            numbers = range(first, min(first + ENVIRONMENTS_AT_ONCE, episodes))
            seeds = [derive_seed(seed, "evaluation", number) for number in numbers]
            for attempt in range(1, ATTEMPTS + 1):
                views = [
                    _View(rotation_degrees, rotation_per_episode, derive_seed(seed, "rotation", n)) for n in numbers
                ]
                try:
                    batch_returns, batch_frames = self._play(version, seeds, views, record - first)
                    break
                except EnvironmentFailedError as error:
                    logger.warning("an evaluation environment failed (attempt %d): %r", attempt, error.__cause__)
                    if attempt == ATTEMPTS:
                        raise
            returns.extend(batch_returns)
            frames.extend(batch_frames)
        filmed = film(frames, frames_per_second(self._config.environment)) if encode and frames else None
        seconds = time.monotonic() - started
        return EvaluationReport(version, returns, rotation_degrees, [] if encode else frames, filmed, seconds, usage())

    def close(self) -> None:
        """Stops watching for hangs."""
        self._watchdog.close()

    def _play(
        self, version: int, seeds: Sequence[int], views: Sequence[_View], record: int
    ) -> tuple[list[float], list[NDArray[np.uint8]]]:
        """One episode a seed: returns, and what the policy saw of the first `record`, each (T, 64, 64, 3)."""
        count = len(seeds)
        seen: list[list[NDArray[np.uint8]]] = [[] for _ in seeds[: max(record, 0)]]
        returns = np.zeros(count)
        running = np.ones(count, np.bool_)
        is_first = np.ones(count, np.bool_)
        images = np.empty((count, *IMAGE_SHAPE), np.uint8)
        state: Any = None
        with contextlib.ExitStack() as stack:
            environments = []
            with self._watchdog, _environment_failures():
                for index, seed in enumerate(seeds):
                    environment = stack.enter_context(self._make(self._config.task, self._config.environment, seed))
                    environments.append(environment)
                    images[index] = views[index].look(environment.reset().observation["image"])
                    self._watchdog.alive()
            action_size = environments[0].action_spec().shape[0]
            policy = self._policy if version > 0 else UniformPolicy(action_size, derive_seed(seeds[0], "uniform"))
            while running.any():
                for index, film in enumerate(seen):
                    if running[index]:
                        film.append(images[index].copy())
                actions, state = policy.act(images, state, is_first=is_first, training=False)
                is_first[:] = False
                with self._watchdog, _environment_failures():
                    for index in np.flatnonzero(running).tolist():
                        time_step = environments[index].step(actions[index])
                        returns[index] += time_step.reward
                        running[index] = not time_step.last()
                        images[index] = views[index].look(time_step.observation["image"])
                        self._watchdog.alive()
        return returns.tolist(), [np.stack(film) for film in seen]


@contextlib.contextmanager
def _environment_failures() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise EnvironmentFailedError(repr(error)) from error


class _View:
    """How one episode's images reach the policy: rotated by U(−degrees, degrees)."""

    def __init__(self, degrees: float, per_episode: bool, seed: int) -> None:
        self._degrees = degrees
        self._random = np.random.default_rng(seed)
        self._angle = self._draw() if per_episode else None

    def look(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return rotate(image, self._draw() if self._angle is None else self._angle)

    def _draw(self) -> float:
        return float(self._random.uniform(-self._degrees, self._degrees))
