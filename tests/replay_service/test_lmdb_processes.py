"""One LMDB file and several processes: writers exclude each other, readers come along, and die."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from common.config import ReplayConfig
from common.errors import UserError
from replay_service.codec import encode
from replay_service.replay import Replay
from replay_service.stores.lmdb import LmdbStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, make_episode

START = """
import sys, time
from contextlib import suppress
from pathlib import Path
from replay_service.codec import decode
from replay_service.stores.lmdb import LmdbReader, LmdbStore
from replay_service.stores.trouble import ChunkGoneError
from tests.replay_service.episodes import ACTION_SIZE, assert_same, make_rows
folder = Path(sys.argv[1])
"""
HOLD = """
store = LmdbStore(folder, ACTION_SIZE, "always")
print("open", flush=True)
time.sleep(600)
"""
READ = """
reader = LmdbReader(folder)
print("open", flush=True)
newest = 0
while newest < int(sys.argv[2]):
    if "when asked" in sys.argv:
        sys.stdin.readline()
    numbers = [number for number, _ in reader.scan()]
    oldest, middle, newest = numbers[0], numbers[len(numbers) // 2], numbers[-1]
    with reader.read([middle, newest]) as found:
        copies = [bytes(data) for data in found]
    with suppress(ChunkGoneError), reader.read([oldest]) as found:
        copies += [bytes(data) for data in found]
    for data in copies:
        chunk = decode(data)
        rows = len(chunk.rows)
        assert_same(chunk.rows, make_rows(chunk.key.stream, 0, rows * chunk.key.index, rows))
    print("looked", flush=True)
"""
READ_AND_STAY = """
reader = LmdbReader(folder)
with reader.read([number for number, _ in reader.scan()]):
    print("open", flush=True)
    time.sleep(600)
"""


@contextmanager
def process(program: str, folder: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has opened the file; killed with -9 at the end if it is still there."""
    with subprocess.Popen(
        [sys.executable, "-c", START + program, str(folder), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
            yield child
        finally:
            child.kill()


def replay_of(folder: Path, chunks: int, rows: int) -> Replay:
    """A replay with room for so many chunks of so many rows."""
    return Replay(
        ReplayConfig(capacity=chunks * rows * REPEAT),
        store=LmdbStore(folder, ACTION_SIZE, "always"),
        action_size=ACTION_SIZE,
        batch_length=4,
        action_repeat=REPEAT,
        seed=0,
    )


def test_a_second_writer_is_refused_while_the_first_lives_and_not_after_it_was_killed(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as first:
        with pytest.raises(UserError, match="another process has this replay open"):
            LmdbStore(tmp_path, ACTION_SIZE, "always")
        first.kill()
        first.wait()
        LmdbStore(tmp_path, ACTION_SIZE, "always").close()


def test_a_reader_in_another_process_follows_a_map_that_grows(tmp_path: Path) -> None:
    replay = replay_of(tmp_path, chunks=1000, rows=40)
    chunks = make_episode(0, [40] * 160)  # 78 MB; the first map is 64 MiB
    replay.insert(encode(chunks[0]))
    with process(READ, tmp_path, "159") as reader:
        for chunk in chunks[1:]:
            replay.insert(encode(chunk))
        out, _ = reader.communicate(timeout=600)
        assert reader.returncode == 0
        assert out.endswith("looked\n")
    replay.close()


CAPACITY = 200
ROWS = 4
EVERY = 20
"""Chunks that are inserted beside one look of the reader: fewer than half of the capacity."""


@pytest.mark.parametrize("others", ["nobody", "a reader", "a reader killed while it reads"])
def test_disk_use_is_bounded_by_the_capacity_whoever_else_reads(tmp_path: Path, others: str) -> None:
    replay = replay_of(tmp_path, CAPACITY, ROWS)
    chunks = make_episode(0, [ROWS] * 10 * CAPACITY)
    for chunk in chunks[:CAPACITY]:
        replay.insert(encode(chunk))
    full = (tmp_path / "data.mdb").stat().st_size
    looks: list[str] = []
    program = READ_AND_STAY if others == "a reader killed while it reads" else READ
    asked = [str(len(chunks) - 1), "when asked"]
    with process(program, tmp_path, *asked) if others != "nobody" else nullcontext() as reader:
        for number, chunk in enumerate(chunks[CAPACITY:]):
            if program == READ_AND_STAY and number == CAPACITY // 4:
                reader.kill()
                reader.wait()
            replay.insert(encode(chunk))
            if others == "a reader" and number % EVERY == 0:
                if number:
                    looks.append(reader.stdout.readline())
                print(file=reader.stdin, flush=True)
        if others == "a reader":
            reader.communicate(timeout=600)
            assert reader.returncode == 0
            # The writer waits for each look, so that only the oldest of what was there may go meanwhile.
            assert set(looks) == {"looked\n"}
    # What is evicted while somebody reads can only be used again when that read has ended.
    assert (tmp_path / "data.mdb").stat().st_size <= 2 * full
    assert replay.report().chunks == CAPACITY
    replay.close()
