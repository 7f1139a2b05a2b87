"""What a replay holds, counted."""

from __future__ import annotations

import math
from pathlib import Path

from common.sequence import ChunkKey, StreamKey
from replay_service.samplers import UniformStep
from replay_service.statistics import episode_returns, holding, index, spread, total
from replay_service.stock import Stored, episode_parts, take_stock
from replay_service.stores.memory import MemoryStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, STREAM, make_episode
from tests.replay_service.sources import fill, some_chunks, source

LENGTH = 4


def test_what_is_held_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks())
    (stock,) = source(tmp_path).stocks()
    held = holding(stock, REPEAT, LENGTH)
    assert (held.chunks, held.rows, held.env_steps, held.inserted_env_steps) == (9, 26, 44, 44)
    # finished: two; open: actor 0's episode in its newest life; its life before broke one off
    assert (held.episodes, held.open_episodes, held.fragments) == (2, 1, 1)
    assert held.windows == 6 + 1 + 3 + 4
    assert (held.streams, held.incarnations) == (3, 2)
    assert held.bytes == stock.bytes > 26 * 12288


def test_what_was_evicted_counts_as_inserted_and_what_is_left_of_its_episode_as_a_fragment(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks(), evict=3)
    (stock,) = source(tmp_path).stocks()
    held = holding(stock, REPEAT, LENGTH)
    assert (held.chunks, held.rows, held.env_steps, held.inserted_env_steps) == (6, 19, 34, 44)
    assert (held.episodes, held.open_episodes, held.fragments) == (0, 1, 3)


def test_an_open_episode_without_its_beginning_is_a_fragment(tmp_path: Path) -> None:
    fill(tmp_path, make_episode(0, [4, 3], ends=False), evict=1)
    held = holding(source(tmp_path).stocks()[0], REPEAT, LENGTH)
    assert (held.episodes, held.open_episodes, held.fragments) == (0, 0, 1)


def test_shards_add_up(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks())
    fill(tmp_path, make_episode(0, [3, 2], StreamKey(1, 1, 0)), shard=1)
    both = [holding(stock, REPEAT, LENGTH) for stock in source(tmp_path, shards=2).stocks()]
    assert total(both).rows == 26 + 5
    assert (total(both).streams, total(both).incarnations, total(both).episodes) == (4, 3, 3)


def test_an_empty_shard_holds_nothing() -> None:
    held = holding(take_stock(MemoryStore(ACTION_SIZE), 0), REPEAT, LENGTH)
    assert set(vars(held).values()) == {0}


def test_returns_are_sums_of_rewards_of_whole_episodes(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks())
    data = source(tmp_path)
    whole = [piece for piece in episode_parts(data.stocks()[0].chunks) if piece.whole]
    assert episode_returns(data, whole) == [sum(range(9)), sum(range(4))]


def test_a_histogram_counts_every_value_once() -> None:
    values = [float(number) for number in range(21)]
    shown = spread(values)
    assert shown is not None
    assert (shown.count, shown.mean, shown.lowest, shown.highest) == (21, 10.0, 0.0, 20.0)
    assert sum(shown.bins) == 21
    assert (shown.edges[0], shown.edges[-1], len(shown.edges)) == (0.0, 20.0, len(shown.bins) + 1)
    alike = spread([3.0, 3.0])
    assert alike is not None
    assert (alike.edges, alike.bins) == ([3.0, 3.0], [2])
    assert spread([]) is None


def test_values_that_are_not_finite_are_counted_apart() -> None:
    shown = spread([1.0, math.inf, 3.0, math.nan, -math.inf])
    assert shown is not None
    assert (shown.count, shown.mean, shown.lowest, shown.highest, shown.not_finite) == (2, 2.0, 1.0, 3.0, 3)
    assert sum(shown.bins) == 2
    none = spread([math.nan])
    assert none is not None
    assert (none.count, none.bins, none.not_finite) == (0, [], 1)


def test_windows_are_counted_wherever_the_chunks_places_lie() -> None:
    chunks = [Stored(0, place, ChunkKey(*STREAM, 0, n), 3, False) for n, place in enumerate((7, 2**45, 2**60))]
    assert index(chunks, LENGTH, UniformStep()).windows == 6
