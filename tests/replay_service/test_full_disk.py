"""The LMDB store on a disk that is full, and has room again; and under a limit on the size of files."""

from __future__ import annotations

import resource
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.config import ReplayConfig, Sync
from replay_service.codec import decode, encode
from replay_service.replay import Replay
from replay_service.stores.lmdb import LmdbReader, LmdbStore
from replay_service.stores.trouble import StoreUnavailableError
from tests.full_disk import SmallDisk, small_disk
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, assert_same, make_episode

CHUNKS = make_episode(0, [10] * 60)  # of 123 KB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=20) as disk:
        yield disk


def opened(folder: Path, sync: Sync = "always") -> Replay:
    return Replay(
        ReplayConfig(capacity=10_000),
        store=LmdbStore(folder, ACTION_SIZE, sync, sync_seconds=0.05),
        action_size=ACTION_SIZE,
        batch_length=4,
        action_repeat=REPEAT,
        seed=0,
    )


def insert_until_full(replay: Replay, start: int = 0) -> int:
    """How many chunks are in when there is no room for the next one."""
    waiting = iter(range(start, len(CHUNKS)))
    with pytest.raises(StoreUnavailableError, match=r"^[^\n]*: the disk takes nothing more \([^\n]*\)$"):
        deque((replay.insert(encode(CHUNKS[number])) for number in waiting), maxlen=0)
    return next(waiting, len(CHUNKS)) - 1


def assert_held(replay: Replay, count: int) -> None:
    store = replay._store
    with store.read(range(count)) as found:
        for data, chunk in zip(found, CHUNKS, strict=False):
            assert_same(decode(data).rows, chunk.rows)
    assert replay.report().chunks == count
    assert replay.report().inserted_env_steps == sum(chunk.rows.env_steps(REPEAT) for chunk in CHUNKS[:count])


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_a_full_disk_leaves_the_store_as_it_was_until_there_is_room(disk: SmallDisk, sync: Sync) -> None:
    replay = opened(disk.folder / "run", sync)
    replay.insert(encode(CHUNKS[0]))
    disk.fill(leave=1_000_000)
    count = insert_until_full(replay, 1)
    assert 3 < count < 9
    assert "disk takes nothing more" in replay.report().trouble
    for _ in range(3):
        assert insert_until_full(replay, count) == count
    assert_held(replay, count)
    assert len(replay.sample(8)) == 8
    disk.free()
    for chunk in CHUNKS[count - 2 :]:
        replay.insert(encode(chunk))
    assert replay.report().trouble == ""
    assert_held(replay, len(CHUNKS))
    replay.close()
    again = opened(disk.folder / "run", sync)
    assert_held(again, len(CHUNKS))
    again.close()


def test_what_did_not_fit_takes_no_room(disk: SmallDisk) -> None:
    replay = opened(disk.folder / "run")
    replay.insert(encode(CHUNKS[0]))
    disk.fill(leave=100_000)
    with pytest.raises(StoreUnavailableError):
        replay.insert(encode(CHUNKS[1]))
    (disk.folder / "something else").write_bytes(bytes(90_000))
    replay.close()


def test_a_store_opens_on_a_full_disk_and_is_read(disk: SmallDisk) -> None:
    replay = opened(disk.folder / "run")
    count = 5
    replay.insert(*(encode(chunk) for chunk in CHUNKS[:count]))
    replay.close()
    disk.fill()
    again = opened(disk.folder / "run")
    assert_held(again, count)
    assert insert_until_full(again, count) == count
    again.close()
    reader = LmdbReader(disk.folder / "run")
    with ExitStack() as reading:
        for _ in range(100):  # LMDB notes each of them in its lock file
            assert len(reading.enter_context(reader.read(range(count)))) == count
    reader.close()


def test_a_new_store_on_a_full_disk_says_so_and_can_be_made_later(disk: SmallDisk) -> None:
    disk.fill()
    with pytest.raises(StoreUnavailableError, match="the disk takes nothing more"):
        opened(disk.folder / "run")
    disk.free()
    replay = opened(disk.folder / "run")
    replay.insert(encode(CHUNKS[0]))
    assert_held(replay, 1)
    replay.close()


def test_a_limit_on_the_size_of_files_is_like_a_full_disk(tmp_path: Path) -> None:
    replay = opened(tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        count = insert_until_full(replay)
        assert 3 < count < 9
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_held(replay, count)
    for chunk in CHUNKS:
        replay.insert(encode(chunk))
    assert_held(replay, len(CHUNKS))
    replay.close()
