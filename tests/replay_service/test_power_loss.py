"""What a power loss leaves of an LMDB file that is not flushed with every insert.

The disk then holds some of the pages that were written since the last flush, and of the others what they were before.
The tests make such files from the file as it was flushed and the file as it was written last. Only the machine's name
for the time since its last start is made up.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from common.config import ReplayConfig
from common.errors import UserError
from common.sequence import Chunk
from replay_service.codec import decode, encode
from replay_service.replay import Replay
from replay_service.stores import flusher
from replay_service.stores.lmdb import LmdbReader, LmdbStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, assert_same, make_episode

CHUNKS = make_episode(0, [3] * 60)
CAPACITY = 20 * 3 * REPEAT
PAGE = 4096
NEVER_BY_ITSELF = 3600.0


@pytest.fixture(autouse=True)
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that names the time since the machine started."""
    file = tmp_path / "boot_id"
    file.write_text("first\n")
    monkeypatch.setattr(flusher, "_BOOT", file)
    return file


def opened(folder: Path, seconds: float = NEVER_BY_ITSELF, capacity: int = CAPACITY) -> Replay:
    return Replay(
        ReplayConfig(capacity=capacity),
        store=LmdbStore(folder, ACTION_SIZE, "interval", seconds),
        action_size=ACTION_SIZE,
        batch_length=4,
        action_repeat=REPEAT,
        seed=0,
    )


def insert(replay: Replay, chunks: Sequence[Chunk]) -> None:
    for chunk in chunks:
        replay.insert(encode(chunk))


def flush(replay: Replay) -> None:
    store = replay._store
    assert isinstance(store, LmdbStore)
    assert store._flusher is not None
    store._flusher.flush()


def mixture(flushed: bytes, written: bytes, seed: int) -> bytes:
    """Some pages new, the others old, or never written where the file has grown."""
    rng = random.Random(seed)
    share = rng.random()
    pages = []
    for start in range(0, max(len(flushed), len(written)), PAGE):
        new, old = written[start : start + PAGE], flushed[start : start + PAGE]
        pages.append((new if rng.random() < share else old).ljust(PAGE, b"\0"))
    return b"".join(pages)


def cut_off(folder: Path, at_last_flush: int, in_all: int) -> tuple[bytes, bytes]:
    """Inserts chunks, flushes on the way, and ends without a last flush: the file as flushed, and as written."""
    replay = opened(folder)
    insert(replay, CHUNKS[:at_last_flush])
    flush(replay)
    flushed = (folder / "data.mdb").read_bytes()
    record = (folder / "flushed").read_bytes()
    insert(replay, CHUNKS[at_last_flush:in_all])
    written = (folder / "data.mdb").read_bytes()
    replay.close()
    (folder / "flushed").write_bytes(record)
    return flushed, written


def held(folder: Path, originals: Sequence[Chunk] = CHUNKS) -> list[int]:
    """Indices of the chunks in the store, each of them the one that was inserted."""
    store = LmdbStore(folder, ACTION_SIZE, "always")
    numbers = [number for number, _ in store.scan()]
    with store.read(numbers) as buffers:
        found = [decode(bytes(data)) for data in buffers]
    indices = [chunk.key.index for chunk in found]
    for chunk in found:
        assert_same(chunk.rows, originals[chunk.key.index].rows)
    assert store.marks() == {originals[0].key.stream: (0, indices[-1])}
    assert store.inserted_env_steps == sum(chunk.rows.env_steps(REPEAT) for chunk in originals[: indices[-1] + 1])
    store.close()
    return indices


@pytest.mark.parametrize("last_flush, in_all", [(5, 6), (12, 40), (30, 33), (40, 60)])
def test_a_power_loss_takes_the_file_back_to_the_last_flush_whichever_pages_were_written(
    tmp_path: Path, boot: Path, last_flush: int, in_all: int
) -> None:
    flushed, written = cut_off(tmp_path / "run", last_flush, in_all)
    boot.write_text("later\n")
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        shutil.copy(tmp_path / "run" / "flushed", folder)
        (folder / "data.mdb").write_bytes(mixture(flushed, written, seed))
        assert held(folder) == list(range(max(0, last_flush - 20), last_flush))


def test_without_the_record_such_a_file_is_lost(tmp_path: Path) -> None:
    flushed, written = cut_off(tmp_path / "run", 12, 40)
    lost = 0
    for seed in range(8):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "data.mdb").write_bytes(mixture(flushed, written, seed))
        try:
            held(folder)
        except (UserError, ValueError, AssertionError):
            lost += 1
    assert lost > 0


def test_a_killed_process_loses_nothing_flushed_or_not(tmp_path: Path) -> None:
    _, written = cut_off(tmp_path / "run", 12, 15)
    (tmp_path / "run" / "data.mdb").write_bytes(written)
    assert held(tmp_path / "run") == list(range(15))
    assert not (tmp_path / "run" / "flushed").exists()


def test_readers_leave_such_a_file_alone_until_its_run_has_mended_it(tmp_path: Path, boot: Path) -> None:
    cut_off(tmp_path / "run", 12, 15)
    boot.write_text("later\n")
    with pytest.raises(UserError, match="resume the run"):
        LmdbReader(tmp_path / "run")
    opened(tmp_path / "run").close()
    reader = LmdbReader(tmp_path / "run")
    assert len(reader.scan()) == 12
    reader.close()


def test_what_was_inserted_is_flushed_in_time_though_no_more_is_inserted(tmp_path: Path, boot: Path) -> None:
    replay = opened(tmp_path / "run", seconds=0.2)
    insert(replay, CHUNKS[:7])
    store = replay._store
    assert isinstance(store, LmdbStore)
    assert store._flusher is not None
    deadline = time.monotonic() + 300
    while store._flusher._unflushed and time.monotonic() < deadline:
        time.sleep(0.05)
    flushed, record = ((tmp_path / "run" / name).read_bytes() for name in ("data.mdb", "flushed"))
    replay.close()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "data.mdb").write_bytes(flushed)
    (tmp_path / "later" / "flushed").write_bytes(record)
    boot.write_text("later\n")
    assert held(tmp_path / "later") == list(range(7))


def test_there_is_a_flushed_state_too_after_the_map_grew(tmp_path: Path, boot: Path) -> None:
    chunks = make_episode(0, [60] * 140)
    replay = opened(tmp_path / "run", capacity=95 * 60 * REPEAT)  # 70 MB; the first map is 64 MiB
    insert(replay, chunks[:80])
    flush(replay)
    insert(replay, chunks[80:])
    written, record = ((tmp_path / "run" / name).read_bytes() for name in ("data.mdb", "flushed"))
    replay.close()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "data.mdb").write_bytes(written)
    (tmp_path / "later" / "flushed").write_bytes(record)
    boot.write_text("later\n")
    indices = held(tmp_path / "later", chunks)
    assert indices == list(range(len(indices)))
    assert 80 < len(indices) < 95, "flushed when the map grew, and not since"


def test_disk_use_is_bounded_between_flushes(tmp_path: Path) -> None:
    replay = opened(tmp_path / "run")
    sizes = []
    for number, chunk in enumerate(make_episode(1, [3] * 400)):
        replay.insert(encode(chunk))
        if number % 10 == 0:
            flush(replay)
        sizes.append((tmp_path / "run" / "data.mdb").stat().st_size)
    assert sizes[-1] <= 1.5 * sizes[150]
    replay.close()
