"""Where chunks are kept: one small interface, one backend a file, chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common.config import Config
from common.errors import UserError
from replay_service.stores.interface import Store, StoreReader
from replay_service.stores.lmdb import LmdbReader, LmdbStore
from replay_service.stores.memory import MemoryStore
from replay_service.stores.redis import RedisReader, RedisStore

StoreFactory = Callable[[Config, Path | None, int, int, str], Store]
ReaderFactory = Callable[[Config, Path, int, str], StoreReader]

STORES: dict[str, StoreFactory] = {
    "memory": MemoryStore.open_to_write,
    "lmdb": LmdbStore.open_to_write,
    "redis": RedisStore.open_to_write,
}
READERS: dict[str, ReaderFactory] = {"lmdb": LmdbReader.open, "redis": RedisReader.open}


def open_store(config: Config, folder: Path | None, shard: int, action_size: int, password: str = "") -> Store:
    """Opens the store that the configuration names, with whatever it already holds.

    Args:
        config: `replay_store` names the backend.
        folder: the run folder's `replay/`; None where there is no run folder.
        shard: which of the run's shards this is.
        action_size: A.
        password: of the server, where the store is on one.

    Raises:
        UserError: there is no such store, or it cannot be opened.
    """
    if config.replay_store not in STORES:
        raise UserError(
            f"--replay-store {config.replay_store}: there is no such store; choose from {', '.join(STORES)}"
        )
    return STORES[config.replay_store](config, folder, shard, action_size, password)


def open_reader(config: Config, folder: Path, shard: int, password: str = "") -> StoreReader:
    """Opens what a run has stored, whether or not the run is going on, without disturbing it.

    Args:
        config: the run's configuration.
        folder: the run folder's `replay/`.
        shard: which of the run's shards.
        password: of the server, where the store is on one.

    Raises:
        UserError: the store keeps nothing, is not there, or cannot be read.
        StoreUnavailableError: its server does not answer.
    """
    if config.replay_store not in READERS:
        raise UserError(f"the {config.replay_store} store keeps nothing that could be read")
    return READERS[config.replay_store](config, folder, shard, password)
