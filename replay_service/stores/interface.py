"""What every store can do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from common.sequence import ChunkKey, StreamKey
from replay_service.codec import BytesLike, Header

Mark = tuple[int, int]


class Entry(NamedTuple):
    """A chunk on its way into a store.

    Attributes:
        sequence: its number, above all before.
        key: its name; its (episode, index) becomes the mark of its stream.
        data: what `codec.encode` returned; the store keeps a copy.
        env_steps: environment steps in it.
    """

    sequence: int
    key: ChunkKey
    data: BytesLike
    env_steps: int


class StoreReader(Protocol):
    """Reads chunks by sequence number, and what was inserted so far. It never writes, locks or waits for a writer."""

    @property
    def action_size(self) -> int:
        """A of every chunk."""

    @property
    def inserted_env_steps(self) -> int:
        """Environment steps ever appended, evicted ones included."""

    @property
    def stored_bytes(self) -> int:
        """Memory or disk that the store takes."""

    def read(self, sequences: Sequence[int]) -> AbstractContextManager[list[BytesLike]]:
        """The bytes of these chunks, in this order, valid until the block ends.

        Raises:
            trouble.ChunkGoneError: one of them is not there.
        """

    def scan(self) -> list[tuple[int, Header]]:
        """Sequence number and header of every chunk held, in the order in which they were appended."""

    def marks(self) -> dict[StreamKey, Mark]:
        """The (episode, index) of the last chunk appended for each stream, whether or not it is still held."""

    def close(self) -> None:
        """Lets go of memory, files and locks."""


class Store(StoreReader, Protocol):
    """Keeps encoded chunks by sequence number, and with them what was inserted so far; one writer at a time.

    What a store promises for an appended chunk when a process or the power dies is its own matter; but the chunks,
    their streams' marks, the environment steps and the evictions of one `append` are there together or not at all.

    A store on a server may raise `trouble.StoreUnavailableError` from any method that reads or writes, and once it
    is back `trouble.StoreChangedError`: what it holds must then be read anew, with `scan` and `marks`.
    """

    def append(self, entries: Sequence[Entry], evict: Sequence[int]) -> None:
        """Stores chunks, in order, and removes those with the sequence numbers `evict`."""
