"""Stores filled by hand, and the source that reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from common.config import Config
from common.sequence import Chunk, StreamKey
from replay_service.codec import encode
from replay_service.source import Facts, StoreSource
from replay_service.stores import open_reader
from replay_service.stores.interface import Entry
from replay_service.stores.lmdb import LmdbStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, make_episode

FACTS = Facts("walker_walk", ACTION_SIZE, REPEAT, "dreamer", 3)


def interleaved(*episodes: Sequence[Chunk]) -> list[Chunk]:
    """Their chunks by turns, as environments in step send them."""
    longest = max(map(len, episodes))
    return [episode[turn] for turn in range(longest) for episode in episodes if turn < len(episode)]


def some_chunks() -> list[Chunk]:
    """Two whole episodes of different environments, one that goes on, and one that was broken off."""
    return [
        *interleaved(make_episode(0, [3, 2, 4]), make_episode(0, [2, 2], StreamKey(0, 0, 1))),
        *make_episode(1, [5, 1], StreamKey(0, 0, 1), ends=False),
        *make_episode(0, [4, 3], StreamKey(0, 2, 0), ends=False),
    ]


def fill(folder: Path, chunks: Iterable[Chunk], shard: int = 0, first: int = 0, evict: int = 0) -> None:
    """An lmdb store in `folder` that holds these chunks, the oldest `evict` of them evicted again."""
    store = LmdbStore(folder / f"shard-{shard}", ACTION_SIZE, sync="never")
    for sequence, chunk in enumerate(chunks, start=first):
        store.append([Entry(sequence, chunk.key, encode(chunk), chunk.rows.env_steps(REPEAT))], ())
    store.close()
    evict_chunks(folder, range(first, first + evict), shard)


def evict_chunks(folder: Path, sequences: Sequence[int], shard: int = 0) -> None:
    """Removes chunks as a run does that has more than it may keep."""
    store = LmdbStore(folder / f"shard-{shard}", ACTION_SIZE, sync="never")
    store.append([], sequences)
    store.close()


def source(folder: Path, shards: int = 1, facts: Facts = FACTS) -> StoreSource:
    """What reads such stores."""
    return StoreSource(facts, [open_reader(Config(), folder, shard) for shard in range(shards)])
