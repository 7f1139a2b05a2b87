"""What a shard of a replay holds, chunk by chunk, and the unbroken pieces of episodes that its chunks make up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from common.sequence import ChunkKey, StreamKey
from replay_service.stores.interface import Mark, StoreReader


class Stored(NamedTuple):
    """A chunk that is held.

    Attributes:
        shard: where.
        sequence: its number there, ascending in the order of insertion.
        key: its name.
        rows: its rows T.
        is_last: whether its episode ended with it.
    """

    shard: int
    sequence: int
    key: ChunkKey
    rows: int
    is_last: bool

    def __str__(self) -> str:
        names = ", ".join(f"{name} {part}" for name, part in self.key._asdict().items())
        return f"shard {self.shard}, chunk {self.sequence} ({names})"

    def env_steps(self, action_repeat: int) -> int:
        """Environment steps in the chunk: action repeat × rows that are no reset row."""
        return action_repeat * (self.rows - (self.key.index == 0))


@dataclass(frozen=True)
class Stock:
    """What one shard held at one moment; its run may have gone on meanwhile.

    Attributes:
        chunks: what was held, in the order of insertion.
        marks: the last (episode, index) ever inserted for each stream, not later than `chunks`.
        later_marks: the same, not earlier than `chunks`.
        inserted_env_steps: environment steps ever inserted, not later than `chunks`.
        later_inserted_env_steps: the same, not earlier.
        bytes: memory or disk that the store takes.
    """

    chunks: list[Stored]
    marks: Mapping[StreamKey, Mark]
    later_marks: Mapping[StreamKey, Mark]
    inserted_env_steps: int
    later_inserted_env_steps: int
    bytes: int


@dataclass(frozen=True)
class EpisodePart:
    """Consecutive chunks of one episode, as many as are held without a gap; at least one."""

    chunks: tuple[Stored, ...]

    @property
    def first(self) -> ChunkKey:
        """Key of its first chunk."""
        return self.chunks[0].key

    @property
    def rows(self) -> int:
        """Rows of all its chunks."""
        return sum(chunk.rows for chunk in self.chunks)

    @property
    def finished(self) -> bool:
        """Whether the episode ended with its last row."""
        return self.chunks[-1].is_last

    @property
    def whole(self) -> bool:
        """Whether it is an episode from its reset row to its end."""
        return self.first.index == 0 and self.finished


def take_stock(reader: StoreReader, shard: int) -> Stock:
    """Looks at everything that a shard holds, without a payload."""
    marks, inserted = reader.marks(), reader.inserted_env_steps
    chunks = [Stored(shard, sequence, header.key, header.rows, header.is_last) for sequence, header in reader.scan()]
    return Stock(chunks, marks, reader.marks(), inserted, reader.inserted_env_steps, reader.stored_bytes)


def in_order(stocks: Iterable[Stock]) -> list[Stored]:
    """The chunks of all shards in one order of insertion; of shards, which have no common clock, by turns."""
    return sorted(
        (chunk for stock in stocks for chunk in stock.chunks), key=lambda chunk: (chunk.sequence, chunk.shard)
    )


def episode_parts(chunks: Iterable[Stored]) -> list[EpisodePart]:
    """The unbroken pieces of episodes among chunks in their order of insertion, by each one's first chunk."""
    newest: dict[StreamKey, list[Stored]] = {}
    found: list[list[Stored]] = []
    for chunk in chunks:
        run = newest.get(chunk.key.stream)
        if run is None or not _follows(run[-1], chunk):
            run = newest[chunk.key.stream] = []
            found.append(run)
        run.append(chunk)
    return [EpisodePart(tuple(run)) for run in found]


def _follows(before: Stored, chunk: Stored) -> bool:
    return not before.is_last and chunk.key == before.key._replace(index=before.key.index + 1)
