"""Chunks in this process' memory: the fastest store, and gone with the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from common.config import Config
from common.sequence import ChunkKey, StreamKey
from replay_service.codec import BytesLike, Header, read_header


class MemoryStore:
    """Implements `replay_service.stores.Store` with a dictionary."""

    def __init__(self) -> None:
        self._chunks: dict[int, bytes] = {}
        self._marks: dict[StreamKey, tuple[int, int]] = {}
        self.inserted_env_steps = 0
        self.bytes = 0

    @classmethod
    def open(cls, config: Config, folder: Path | None, shard: int, action_size: int) -> Self:
        """A new, empty store: this one has nothing to come back to."""
        return cls()

    def append(self, sequence: int, key: ChunkKey, data: BytesLike, env_steps: int, evict: Sequence[int]) -> None:
        """See `Store.append`."""
        # A copy: data may be a view of Ray's object store, which would never be freed.
        self._chunks[sequence] = bytes(data)
        self._marks[key.stream] = (key.episode, key.index)
        self.inserted_env_steps += env_steps
        self.bytes += len(data) - sum(len(self._chunks.pop(old)) for old in evict)

    @contextmanager
    def read(self, sequences: Sequence[int]) -> Iterator[list[BytesLike]]:
        """See `Store.read`."""
        yield [self._chunks[sequence] for sequence in sequences]

    def scan(self) -> list[tuple[int, Header]]:
        """See `Store.scan`."""
        return [(sequence, read_header(data)) for sequence, data in self._chunks.items()]

    def marks(self) -> dict[StreamKey, tuple[int, int]]:
        """See `Store.marks`."""
        return dict(self._marks)

    def close(self) -> None:
        """See `Store.close`."""
        self._chunks.clear()
