"""Windows read through a small memory in which rows stay, beside the same windows read whole."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from common.config import ReplayConfig
from common.sequence import ROW_FIELDS, Rows, StreamKey
from replay_service.codec import encode
from replay_service.parcel import Draw, unpack
from replay_service.replay import Replay
from replay_service.residence import Plan, Residence
from replay_service.stores.interface import Store
from replay_service.stores.lmdb import LmdbStore
from replay_service.stores.memory import MemoryStore
from replay_service.stores.trouble import ChunkGoneError
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, assert_same, make_episode

LENGTH = 7
BATCH = 6


def make_replay(capacity: int = 400, store: Store | None = None) -> Replay:
    return Replay(
        ReplayConfig(capacity=capacity),
        store=store or MemoryStore(ACTION_SIZE),
        action_size=ACTION_SIZE,
        batch_length=LENGTH,
        action_repeat=REPEAT,
        seed=0,
    )


class Memory:
    """Memory with a residence over it, and guards around it."""

    def __init__(self, size: int, first: int = 3) -> None:
        self.rows = Rows.empty((first + size + 2,), ACTION_SIZE)
        self.residence = Residence(first, size)
        self.first, self.end = first, first + size
        self.brought = 0

    def batch(self, replay: Replay, draw: Draw) -> Rows:
        plan = self.residence.plan(draw)
        new = Rows.empty((1, len(plan.places)), ACTION_SIZE)
        if len(plan.places):
            with replay.read(plan.missing) as parcel:
                unpack(parcel, new)
        self.residence.keep(plan)
        self.put(plan, new)
        return Rows(*(getattr(self.rows, name)[plan.wanted] for name in ROW_FIELDS))

    def put(self, plan: Plan, new: Rows) -> None:
        assert len(set(plan.places.tolist())) == len(plan.places)
        for numbers in (plan.places, plan.wanted):
            assert ((numbers >= self.first) & (numbers < self.end)).all(), "within its part of the memory"
        for name in ROW_FIELDS:
            getattr(self.rows, name)[plan.places] = getattr(new, name)[0]
        self.brought += len(plan.places)


def whole(replay: Replay, draw: Draw) -> Rows:
    with replay.read(draw) as parcel:
        return unpack(parcel, Rows.empty((draw.batch_size, draw.length), ACTION_SIZE))


@pytest.mark.parametrize("size", [BATCH * LENGTH, 60, 220, 1000])
@pytest.mark.parametrize("packs", ["never", "always", "some"])
def test_batches_are_those_without_a_memory_through_evictions_and_chunk_borders(size: int, packs: str) -> None:
    """Sizes: one batch's rows; fewer than the replay holds; as many; all that were ever inserted."""
    rng = random.Random(size)
    replay, memory = make_replay(), Memory(size)
    asked = most = 0
    for episode in range(40):
        sizes = [rng.randint(1, 12) for _ in range(rng.randint(1, 5))]
        for chunk in make_episode(episode, sizes, StreamKey(episode % 3, 0, 0)):
            pack = packs == "always" or (packs == "some" and rng.random() < 0.5)
            replay.insert(encode(chunk, pack=pack))
        if not replay.windows:
            continue
        for _ in range(3):
            draw = replay.draw(rng.randint(1, BATCH))
            assert_same(memory.batch(replay, draw), whole(replay, draw))
            asked += draw.batch_size * LENGTH
            most = max(most, memory.residence.rows)
    assert replay.report().inserted_env_steps > 3 * 400, "most of it was evicted"
    assert most <= size
    if size >= 220:
        assert memory.brought < asked / 2


def test_a_row_is_brought_once(tmp_path: Path) -> None:
    replay, memory = make_replay(capacity=10_000), Memory(300)
    for chunk in make_episode(0, [9, 10, 1, 30, 50]):
        replay.insert(encode(chunk, pack=chunk.key.index % 2 == 0))
    for _ in range(200):
        memory.batch(replay, replay.draw(BATCH))
    assert memory.brought == memory.residence.rows == 100


def drawn(pieces: list[tuple[int, int, int, int, int]], rows: dict[int, int], edition: str = "one") -> Draw:
    """A draw of windows of 4 rows from chunks with so many rows."""
    layouts = np.array([(64, count, 0) for count in rows.values()], np.int64)
    windows = max(piece[0] for piece in pieces) + 1
    return Draw(windows, 4, np.array(pieces, np.int64), list(rows), layouts, edition)


def brought(residence: Residence, draw: Draw) -> tuple[list[int], NDArray[np.int64]]:
    """The chunks that rows were missing of, and where the windows lie."""
    plan = residence.plan(draw)
    residence.keep(plan)
    return plan.missing.sequences, plan.wanted


def test_what_is_missing_is_one_window_with_each_row_once() -> None:
    residence = Residence(0, 20)
    pieces = [(0, 0, 0, 5, 8), (0, 3, 1, 0, 1), (1, 0, 0, 6, 8), (1, 2, 1, 0, 2), (2, 0, 2, 1, 5)]
    plan = residence.plan(drawn(pieces, {3: 8, 4: 9, 9: 6}))
    assert plan.missing.sequences == [3, 4, 9]
    assert plan.missing.pieces.tolist() == [[0, 0, 0, 5, 8], [0, 3, 1, 0, 2], [0, 5, 2, 1, 5]]
    assert (plan.missing.batch_size, plan.missing.length, len(plan.places)) == (1, 9, 9)
    assert plan.wanted.tolist() == plan.places[[[0, 1, 2, 3], [1, 2, 3, 4], [5, 6, 7, 8]]].tolist()
    residence.keep(plan)
    again = residence.plan(drawn([(0, 0, 0, 4, 8)], {3: 8}))
    assert again.missing.pieces.tolist() == [[0, 0, 0, 4, 5]], "the row before them is new"


def test_what_was_planned_and_not_kept_is_missing_still() -> None:
    residence = Residence(0, 8)
    draw = drawn([(0, 0, 0, 0, 4)], {0: 4})
    first, second = residence.plan(draw), residence.plan(draw)
    assert first.missing.length == second.missing.length == 4
    assert residence.rows == 0
    residence.keep(second)
    assert residence.plan(draw).missing.length == 0
    assert residence.rows == 4


def test_the_oldest_chunks_make_room_and_not_those_that_are_wanted() -> None:
    residence = Residence(0, 12)
    for sequence in (5, 3, 8):
        brought(residence, drawn([(0, 0, 0, 0, 4)], {sequence: 4}))
    assert brought(residence, drawn([(0, 0, 0, 0, 4), (1, 0, 1, 0, 4)], {3: 4, 9: 4}))[0] == [9]  # 5 goes, 3 stays
    for sequence, missing in ((3, []), (8, []), (9, []), (5, [5])):
        assert brought(residence, drawn([(0, 0, 0, 0, 4)], {sequence: 4}))[0] == missing


def test_rows_that_nobody_asks_for_now_make_room_even_if_their_chunks_are_wanted() -> None:
    residence = Residence(0, 8)
    brought(residence, drawn([(0, 0, 0, 0, 4), (1, 0, 0, 4, 8)], {0: 12}))
    missing, wanted = brought(residence, drawn([(0, 0, 0, 6, 10), (1, 0, 0, 8, 12)], {0: 12}))
    assert missing == [0]
    assert len(set(wanted.ravel().tolist())) == 6
    assert residence.rows <= 8


def test_another_edition_of_the_shard_has_other_chunks_under_the_same_numbers() -> None:
    residence = Residence(0, 100)
    draw = drawn([(0, 0, 0, 0, 4)], {0: 4})
    assert [brought(residence, draw)[0] for _ in range(2)] == [[0], []]
    assert brought(residence, draw._replace(edition="two"))[0] == [0]
    assert residence.rows == 4


def test_a_draw_that_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="2 windows of 4 rows do not fit in 7 places"):
        Residence(0, 7).plan(drawn([(0, 0, 0, 0, 4), (1, 0, 0, 0, 4)], {0: 4}))


def test_windows_that_were_evicted_since_they_were_drawn_are_not_read() -> None:
    replay = make_replay(capacity=100)
    replay.insert(*(encode(chunk) for chunk in make_episode(0, [20, 20])))
    draw = replay.draw(BATCH)
    for episode in range(1, 6):
        replay.insert(*(encode(chunk) for chunk in make_episode(episode, [20, 20])))
    with pytest.raises(ChunkGoneError), replay.read(draw):
        pass


def test_a_shard_that_began_anew_does_not_read_what_another_life_drew(tmp_path: Path) -> None:
    first = make_replay(store=LmdbStore(tmp_path / "a", ACTION_SIZE, "never"))
    first.insert(*(encode(chunk) for chunk in make_episode(0, [20, 20])))
    draw = first.draw(BATCH)
    first.close()
    again = make_replay(store=LmdbStore(tmp_path / "a", ACTION_SIZE, "never"))
    assert again.draw(1).edition != draw.edition
    with pytest.raises(ChunkGoneError), again.read(draw):
        pass
    again.close()
