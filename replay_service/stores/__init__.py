"""Where chunks are kept: one small interface, one backend a file, chosen by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from common.config import Config
from common.errors import UserError
from common.sequence import ChunkKey, StreamKey
from replay_service.codec import BytesLike, Header
from replay_service.stores.lmdb import LmdbStore
from replay_service.stores.memory import MemoryStore

Mark = tuple[int, int]


class Store(Protocol):
    """Keeps encoded chunks by sequence number, and with them what was inserted so far; one writer at a time.

    What a store promises for an appended chunk when a process or the power dies is its own matter; but a chunk, its
    stream's mark, the environment steps and the evictions of one `append` are there together or not at all.
    """

    @property
    def inserted_env_steps(self) -> int:
        """Environment steps ever appended, evicted ones included."""

    @property
    def bytes(self) -> int:
        """Memory or disk that the store takes."""

    def append(self, sequence: int, key: ChunkKey, data: BytesLike, env_steps: int, evict: Sequence[int]) -> None:
        """Stores one chunk under a sequence number above all before, and removes others.

        Args:
            sequence: the chunk's number.
            key: its name; its (episode, index) becomes the mark of its stream.
            data: what `codec.encode` returned; copied.
            env_steps: environment steps in it.
            evict: sequence numbers of chunks to remove.
        """

    def read(self, sequences: Sequence[int]) -> AbstractContextManager[list[BytesLike]]:
        """The bytes of these chunks, in this order, valid until the block ends."""

    def scan(self) -> list[tuple[int, Header]]:
        """Sequence number and header of every chunk held, in the order in which they were appended."""

    def marks(self) -> dict[StreamKey, Mark]:
        """The (episode, index) of the last chunk appended for each stream, whether or not it is still held."""

    def close(self) -> None:
        """Lets go of memory, files and locks."""


StoreFactory = Callable[[Config, Path | None, int, int], Store]

STORES: dict[str, StoreFactory] = {"memory": MemoryStore.open, "lmdb": LmdbStore.open}


def open_store(config: Config, folder: Path | None, shard: int, action_size: int) -> Store:
    """Opens the store that the configuration names, with whatever it already holds.

    Args:
        config: `replay_store` names the backend.
        folder: the run folder's `replay/`; None where there is no run folder.
        shard: which of the run's shards this is.
        action_size: A.

    Raises:
        UserError: there is no such store, or it cannot be opened.
    """
    if config.replay_store not in STORES:
        raise UserError(
            f"--replay-store {config.replay_store}: there is no such store; choose from {', '.join(STORES)}"
        )
    return STORES[config.replay_store](config, folder, shard, action_size)
