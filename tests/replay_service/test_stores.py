"""What every store must do, whichever it is."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Config, ReplayConfig
from common.errors import UserError
from common.sequence import Chunk, ChunkKey, StreamKey
from replay_service.codec import decode, encode, read_header
from replay_service.replay import Replay
from replay_service.stores import STORES, open_store
from replay_service.stores.interface import Entry, Store
from tests.redis_server import RedisServer
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, assert_same, make_episode, make_rows

KEPT_BY_REOPENING = {"memory": False, "lmdb": True, "redis": True}


def test_every_store_says_whether_it_keeps_its_chunks() -> None:
    assert STORES.keys() == KEPT_BY_REOPENING.keys()


def test_unknown_store_names_those_there_are() -> None:
    with pytest.raises(UserError, match="memory, lmdb, redis"):
        open_store(Config(replay_store="reverb"), None, 0, ACTION_SIZE)


def named(name: str, folder: Path, server: RedisServer, **changes: Any) -> Config:
    """A configuration of this store; on Redis, a folder stands for a run and its keys."""
    prefix = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Config(replay_store=name, redis_url=server.url, redis_prefix=prefix, **changes)


@pytest.fixture(params=sorted(STORES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


Opener = Callable[[], Store]


@pytest.fixture
def open_named(name: str, tmp_path: Path, redis_server: RedisServer) -> Opener:
    return lambda: open_store(named(name, tmp_path, redis_server), tmp_path, 0, ACTION_SIZE)


@pytest.fixture
def store(open_named: Opener) -> Iterator[Store]:
    opened = open_named()
    yield opened
    opened.close()


def append(store: Store, sequence: int, chunk: Chunk, evict: tuple[int, ...] = ()) -> None:
    store.append([Entry(sequence, chunk.key, encode(chunk), chunk.rows.env_steps(REPEAT))], evict)


def contents(store: Store) -> list[Chunk]:
    with store.read([sequence for sequence, _ in store.scan()]) as buffers:
        return [decode(bytes(buffer)) for buffer in buffers]


def test_chunks_are_read_back_bit_for_bit_in_the_order_asked_for(store: Store) -> None:
    chunks = make_episode(0, [3, 2, 4])
    for sequence, chunk in enumerate(chunks, start=250):  # across the border of a byte
        append(store, sequence, chunk)
    with store.read([252, 250, 251, 250]) as buffers:
        for buffer, position in zip(buffers, (2, 0, 1, 0), strict=True):
            assert_same(decode(buffer).rows, chunks[position].rows)


def test_scan_gives_numbers_and_headers_in_order(store: Store) -> None:
    chunks = make_episode(0, [1] * 8)
    for sequence, chunk in enumerate(chunks, start=252):
        append(store, sequence, chunk)
    assert store.scan() == [(252 + i, read_header(encode(chunk))) for i, chunk in enumerate(chunks)]


def test_marks_and_counts_outlive_the_chunks(store: Store) -> None:
    other = StreamKey(1, 2, 3)
    chunks = [*make_episode(0, [3, 2]), *make_episode(7, [4], other)]
    for sequence, chunk in enumerate(chunks):
        append(store, sequence, chunk)
    append(store, 3, make_episode(8, [1], other)[0], evict=(0, 1, 2))
    assert [sequence for sequence, _ in store.scan()] == [3]
    assert store.marks() == {StreamKey(0, 0, 0): (0, 1), other: (8, 0)}
    assert store.inserted_env_steps == REPEAT * (2 + 2 + 3 + 0)


def test_store_keeps_a_copy_of_what_it_was_given(store: Store) -> None:
    chunk = make_episode(0, [2])[0]
    data = encode(chunk)
    store.append([Entry(0, chunk.key, data, 2)], ())
    data[:] = 0
    assert_same(contents(store)[0].rows, chunk.rows)


def test_evicting_as_much_as_comes_in_does_not_grow_the_store(store: Store) -> None:
    chunks = make_episode(0, [5] * 120)
    sizes = []
    for sequence, chunk in enumerate(chunks):
        append(store, sequence, chunk, evict=(sequence - 10,) if sequence >= 10 else ())
        sizes.append(store.stored_bytes)
    assert 10 * 5 * 12288 < sizes[-1] <= 1.1 * sizes[30]


def test_reopening_finds_all_or_nothing_as_promised(name: str, open_named: Opener) -> None:
    first = open_named()
    chunks = make_episode(0, [3, 2, 4])
    for sequence, chunk in enumerate(chunks):
        append(first, sequence, chunk, evict=(0,) if sequence == 2 else ())
    kept = (first.scan(), first.marks(), first.inserted_env_steps)
    first.close()
    again = open_named()
    assert (again.scan(), again.marks(), again.inserted_env_steps) == (kept if KEPT_BY_REOPENING[name] else ([], {}, 0))
    if KEPT_BY_REOPENING[name]:
        for found, chunk in zip(contents(again), chunks[1:], strict=True):
            assert_same(found.rows, chunk.rows)
    again.close()


def test_retries_after_reopening_are_stored_once_even_when_evicted(name: str, open_named: Opener) -> None:
    def opened() -> Replay:
        return Replay(
            ReplayConfig(capacity=8),
            store=open_named(),
            action_size=ACTION_SIZE,
            batch_length=4,
            action_repeat=REPEAT,
            seed=0,
        )

    chunks = [encode(chunk) for chunk in make_episode(0, [4, 4, 4])]
    first = opened()
    assert [first.insert(chunk) for chunk in chunks] == [6, 8, 8]
    first.close()
    again = opened()
    assert [again.insert(chunk) for chunk in chunks] == ([0, 0, 0] if KEPT_BY_REOPENING[name] else [6, 8, 8])
    assert again.report().inserted_env_steps == 22
    again.close()


class Model:
    """Replay as the contract has it, in the plainest words."""

    def __init__(self) -> None:
        self.held: list[Chunk] = []
        self.run_of: dict[ChunkKey, int] = {}  # chunks of one run follow each other without a gap
        self.marks: dict[StreamKey, tuple[int, int]] = {}
        self.inserted = 0

    def insert(self, chunk: Chunk, capacity: int) -> int:
        name = (chunk.key.episode, chunk.key.index)
        if name <= self.marks.get(chunk.key.stream, (-1, -1)):
            return 0
        before = chunk.key._replace(index=chunk.key.index - 1)
        follows = self.marks.get(chunk.key.stream) == (before.episode, before.index)
        self.run_of[chunk.key] = self.run_of[before] if follows else len(self.run_of)
        self.marks[chunk.key.stream] = name
        self.held.append(chunk)
        while len(self.held) > 1 and sum(c.rows.env_steps(REPEAT) for c in self.held) > capacity:
            self.held.pop(0)
        self.inserted += chunk.rows.env_steps(REPEAT)
        return chunk.rows.env_steps(REPEAT)

    def windows(self) -> list[tuple[StreamKey, tuple[float, ...]]]:
        """Every window that may be drawn: who wrote it, and its rows' rewards, which name them."""
        runs: dict[int, tuple[StreamKey, list[float]]] = {}
        for chunk in self.held:
            runs.setdefault(self.run_of[chunk.key], (chunk.key.stream, []))[1].extend(chunk.rows.reward.tolist())
        return [
            (stream, tuple(rewards[start : start + LENGTH]))
            for stream, rewards in runs.values()
            for start in range(len(rewards) - LENGTH + 1)
        ]


LENGTH = 4
CAPACITY = 24
ENVIRONMENTS = [
    [chunk for episode in range(3) for chunk in make_episode(episode, sizes, StreamKey(0, 0, environment))]
    for environment, sizes in enumerate([(3, 2, 2), (1, 4, 4, 1), (6,)])
]
actions = st.lists(
    st.tuples(
        st.sampled_from(["next", "next", "next", "again", "together", "sample", "reopen", "crash"]),
        st.integers(0, 2),
        st.integers(0, 11),
    ),
    max_size=40,
)


def crashed(name: str, folder: Path, life: int) -> Path:
    """What a store finds whose process was killed just now: LMDB its file as the page cache has it, unclosed."""
    copy = folder.parent / f"life-{life}"
    if name == "lmdb":
        shutil.copytree(folder, copy)
        return copy
    return folder


@settings(deadline=None, max_examples=60)
@given(actions=actions)
@pytest.mark.parametrize("store_name", sorted(STORES))
def test_any_order_of_inserts_retries_draws_reopenings_and_crashes_agrees_with_the_model(
    store_name: str, actions: list[tuple[str, int, int]], redis_server: RedisServer
) -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as opened:
        # sync has no part in what a process sees, and costs a flush of the disk an insert
        limits = ReplayConfig(capacity=CAPACITY, sync="never")
        config = named(store_name, Path(temporary), redis_server, replay=limits)
        folder = Path(temporary) / "life-0"

        def open_replay() -> Replay:
            store = open_store(config, folder, 0, ACTION_SIZE)
            opened.callback(store.close)
            return Replay(
                config.replay,
                store=store,
                action_size=ACTION_SIZE,
                batch_length=LENGTH,
                action_repeat=REPEAT,
                seed=0,
            )

        replay, model, sent = open_replay(), Model(), [0, 0, 0]
        for life, (action, environment, number) in enumerate(actions, start=1):
            chunks = ENVIRONMENTS[environment]
            match action:
                case "reopen" | "crash":
                    if action == "reopen":
                        replay.close()
                    else:
                        folder = crashed(store_name, folder, life)
                    replay, model = open_replay(), model if KEPT_BY_REOPENING[store_name] else Model()
                case "together":  # several at once, some of them for the second time
                    group = chunks[: number + 1]
                    expected = sum(model.insert(chunk, CAPACITY) for chunk in group)
                    assert replay.insert(*(encode(chunk) for chunk in group)) == expected
                case "sample" if replay.windows:
                    assert_drawn_from(model, replay)
                case "next" | "again":
                    if action == "next":
                        number = sent[environment] % len(chunks)
                        sent[environment] += 1
                    chunk = chunks[number % len(chunks)]
                    assert replay.insert(encode(chunk, pack=number % 2 == 0)) == model.insert(chunk, CAPACITY)
            assert replay.windows == len(model.windows())
        report = replay.report()
        assert report.chunks == len(model.held)
        assert report.rows == sum(len(chunk.rows) for chunk in model.held)
        assert report.env_steps == sum(chunk.rows.env_steps(REPEAT) for chunk in model.held)
        assert report.inserted_env_steps == model.inserted


def assert_drawn_from(model: Model, replay: Replay) -> None:
    """Windows drawn are windows of the model, bit for bit."""
    batch = replay.sample(8)
    for row in range(8):
        rewards = tuple(batch.reward[row].tolist())
        episode, first = divmod(int(rewards[0]), 1000)
        candidates = [
            make_rows(stream, episode, first, LENGTH).image.tobytes()
            for stream in {stream for stream, found in model.windows() if found == rewards}
        ]
        assert batch.image[row].tobytes() in candidates
