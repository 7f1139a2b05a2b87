"""Chunks in this process' memory: the fastest store, and gone with the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from common.config import Config
from common.sequence import StreamKey
from replay_service.codec import BytesLike, Header, read_header
from replay_service.stores.interface import Entry, Mark


class MemoryStore:
    """Implements `replay_service.stores.Store` with a dictionary."""

    def __init__(self, action_size: int) -> None:
        self._chunks: dict[int, bytes] = {}
        self._marks: dict[StreamKey, Mark] = {}
        self.action_size = action_size
        self.inserted_env_steps = 0
        self.stored_bytes = 0

    @classmethod
    def open_to_write(cls, config: Config, folder: Path | None, shard: int, action_size: int, password: str) -> Self:
        """A new, empty store: this one has nothing to come back to."""
        return cls(action_size)

    def append(self, entries: Sequence[Entry], evict: Sequence[int]) -> None:
        """See `Store.append`."""
        for entry in entries:
            # A copy: data may be a view of Ray's object store, which would never be freed.
            self._chunks[entry.sequence] = bytes(entry.data)
            self._marks[entry.key.stream] = (entry.key.episode, entry.key.index)
            self.inserted_env_steps += entry.env_steps
            self.stored_bytes += len(entry.data)
        self.stored_bytes -= sum(len(self._chunks.pop(old)) for old in evict)

    @contextmanager
    def read(self, sequences: Sequence[int]) -> Iterator[list[BytesLike]]:
        """See `StoreReader.read`."""
        yield [self._chunks[sequence] for sequence in sequences]

    def scan(self) -> list[tuple[int, Header]]:
        """See `StoreReader.scan`."""
        return [(sequence, read_header(data)) for sequence, data in self._chunks.items()]

    def marks(self) -> dict[StreamKey, Mark]:
        """See `StoreReader.marks`."""
        return dict(self._marks)

    def close(self) -> None:
        """See `StoreReader.close`."""
        self._chunks.clear()
