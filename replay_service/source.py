"""Where replay data can be read: in the stores of a run, or in a dataset's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.sequence import ROW_FIELDS, Chunk, Rows
from replay_service.codec import CodecError, decode, read_header, views
from replay_service.stock import Stock, Stored, take_stock
from replay_service.stores.interface import StoreReader


@dataclass(frozen=True)
class Facts:
    """What replay data is of.

    Attributes:
        task: what the environment was; empty if nobody knows.
        action_size: A.
        action_repeat: environment steps a row.
        algorithm: of the run that it comes from, if that is known.
        seed: of that run, if it is known.
    """

    task: str
    action_size: int
    action_repeat: int
    algorithm: str | None = None
    seed: int | None = None


class Source(Protocol):
    """Replay data that can be read, chunk by chunk, while it may still change."""

    @property
    def facts(self) -> Facts:
        """What it is of."""

    def stocks(self) -> list[Stock]:
        """What each shard holds now."""

    def chunk(self, stored: Stored) -> Chunk:
        """One chunk of a stock, in memory of its own.

        Raises:
            CodecError: it is damaged.
            trouble.ChunkGoneError: it is not there any more.
        """

    def rewards(self, stored: Stored) -> NDArray[np.float32]:
        """The rewards (T,) of a chunk, without the rest; its checksum is not looked at.

        Raises:
            CodecError: it is damaged.
            trouble.ChunkGoneError: it is not there any more.
        """

    def close(self) -> None:
        """Lets go of memory, files and connections."""


class StoreSource:
    """Implements `Source` with a reader a shard."""

    def __init__(self, facts: Facts, readers: Sequence[StoreReader]) -> None:
        self._facts = facts
        self._readers = readers

    @property
    def facts(self) -> Facts:
        """See `Source.facts`."""
        return self._facts

    def stocks(self) -> list[Stock]:
        """See `Source.stocks`.

        Raises:
            StoreDamagedError: a chunk's header is damaged.
        """
        return [take_stock(reader, shard) for shard, reader in enumerate(self._readers)]

    def chunk(self, stored: Stored) -> Chunk:
        """See `Source.chunk`."""
        with self._readers[stored.shard].read([stored.sequence]) as (data,):
            chunk = decode(data)
            if (chunk.key, len(chunk.rows), chunk.is_last) != stored[2:]:
                raise CodecError(f"in its place is chunk {tuple(chunk.key)} of {len(chunk.rows)} rows")
            return Chunk(chunk.key, Rows(*(getattr(chunk.rows, name).copy() for name in ROW_FIELDS)), chunk.is_last)

    def rewards(self, stored: Stored) -> NDArray[np.float32]:
        """See `Source.rewards`."""
        with self._readers[stored.shard].read([stored.sequence]) as (data,):
            header = read_header(data)
            reward: NDArray[np.float32] = views(data, header.layout, header.action_size)[2]
            return reward.copy()

    def close(self) -> None:
        """See `Source.close`."""
        for reader in self._readers:
            reader.close()


def lost(source: Source, gone: Sequence[Stored]) -> list[Stored]:
    """Those of the chunks found gone that were not evicted meanwhile: something older than they is still there."""
    oldest = [stock.chunks[0].sequence if stock.chunks else 0 for stock in source.stocks()] if gone else []
    return [stored for stored in gone if stored.sequence >= oldest[stored.shard]]
