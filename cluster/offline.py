"""Training without collecting: replay data is checked, and inserted into the run's own replay when it begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from cluster.replay_data.fit import by_shard, env_steps, refuse_damage, refuse_other_facts, refuse_overflow
from cluster.replay_data.opening import open_data
from common.config import Config
from common.errors import UserError
from common.sequence import Chunk
from replay_service.codec import CodecError
from replay_service.samplers import SAMPLERS
from replay_service.source import Source
from replay_service.statistics import index
from replay_service.stock import Stored
from replay_service.stores.trouble import ChunkGoneError

GROUP = 8
Insert = Callable[[int, Sequence[Chunk]], object]


class OfflineData:
    """The replay data that `--offline` names; its chunks keep their keys, so inserting them again changes nothing.

    Args:
        config: of the run that trains from it.
        action_size: A of the run's task.
        password_file: of the data's Redis servers, instead of DREAMFLEET_REDIS_PASSWORD.

    Attributes:
        env_steps: environment steps that each shard is to hold; None before the data was first inserted.
    """

    def __init__(self, config: Config, action_size: int, password_file: str = "") -> None:
        self.env_steps: list[int] | None = None
        self._config = config
        self._name = f"--offline {config.offline}"
        self._action_size = action_size
        self._password_file = password_file

    def check(self) -> None:
        """Reads all of it.

        Raises:
            UserError: there is none, it is damaged, or it is none that this run could train from.
        """
        with self._open() as source:
            refuse_other_facts(self._name, source.facts, self._config, self._action_size)
            parts = by_shard(source, self._config.replay.shards)
            refuse_overflow(self._name, parts, self._config)
            self._refuse_short_episodes(parts)
            refuse_damage(self._name, source)

    def fill(self, inserted: Sequence[int], insert: Insert, stopped: Callable[[], bool]) -> None:
        """Inserts what the run's shards lack, in the order in which it was inserted before.

        Args:
            inserted: environment steps that were ever inserted into each shard.
            insert: stores chunks in a shard.
            stopped: asked between two calls of `insert` whether to leave the rest for later.

        Raises:
            UserError: the data cannot be read, or is not what the run began with.
        """
        if self.env_steps is not None and all(map(int.__ge__, inserted, self.env_steps)):
            return
        with self._open() as source:
            parts = by_shard(source, self._config.replay.shards)
            wanted = [env_steps(part, self._config.environment.action_repeat) for part in parts]
            if self.env_steps not in (None, wanted):
                raise UserError(f"{self._name}: it is not what the run began with")
            self.env_steps = wanted
            for shard, part in enumerate(parts):
                if inserted[shard] >= wanted[shard]:
                    continue
                for start in range(0, len(part), GROUP):
                    if stopped():
                        return
                    insert(shard, [self._read(source, stored) for stored in part[start : start + GROUP]])

    @contextmanager
    def _open(self) -> Iterator[Source]:
        if "://" in self._config.offline:
            raise UserError("--offline takes a run folder or a dataset, no address")
        try:
            opened = open_data(self._config.offline, self._password_file)
        except UserError as error:
            raise UserError(f"--offline: {error}") from error
        with closing(opened.source) as source:
            yield source

    def _read(self, source: Source, stored: Stored) -> Chunk:
        try:
            return source.chunk(stored)
        except (CodecError, ChunkGoneError) as error:
            raise UserError(f"{self._name}: {stored}: {error}") from error

    def _refuse_short_episodes(self, parts: Sequence[Sequence[Stored]]) -> None:
        """Raises UserError if nothing could be drawn from what the shards are to hold."""
        replay, length = self._config.replay, self._config.training.batch_length
        if not any(index(part, length, SAMPLERS[replay.sampling](replay)).drawable_windows for part in parts):
            raise UserError(
                f"{self._name}: it has no episode with the {length} rows of a training window"
                + (" that has ended" if replay.sampling == "uniform_episode" else "")
                + ": lower --training.batch-length"
            )
