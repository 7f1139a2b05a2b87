import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import lmdb
import msgpack
import pytest

from common.config import Config, ReplayConfig
from common.errors import UserError
from replay_service.codec import CodecError, decode, encode
from replay_service.stores import open_store
from replay_service.stores.interface import Entry
from replay_service.stores.lmdb import LmdbReader, LmdbStore
from replay_service.stores.trouble import StoreDamagedError
from tests.replay_service.episodes import ACTION_SIZE, assert_same, make_episode


def opened(folder: Path, action_size: int = ACTION_SIZE) -> LmdbStore:
    return LmdbStore(folder, action_size, sync="never")


def filled(folder: Path, chunks: int) -> None:
    store = opened(folder)
    for sequence, chunk in enumerate(make_episode(0, [2] * chunks)):
        store.append([Entry(sequence, chunk.key, encode(chunk), 4)], ())
    store.close()


def test_second_writer_is_refused_until_the_first_has_closed(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(UserError, match="another process"):
        opened(tmp_path)
    first.close()
    opened(tmp_path).close()


def test_another_action_size_is_refused_and_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with pytest.raises(UserError, match="'action_size': 3"):
        opened(tmp_path, action_size=6)
    store = opened(tmp_path)
    assert len(store.scan()) == 2
    store.close()


def test_lmdb_without_a_folder_is_refused() -> None:
    with pytest.raises(UserError, match="--run-dir"):
        open_store(Config(replay_store="lmdb"), None, 0, ACTION_SIZE)


def test_shards_lie_side_by_side(tmp_path: Path) -> None:
    stores = [open_store(Config(replay=ReplayConfig(shards=2)), tmp_path, shard, ACTION_SIZE) for shard in range(2)]
    chunk = make_episode(0, [2])[0]
    stores[1].append([Entry(0, chunk.key, encode(chunk), 2)], ())
    assert [store.inserted_env_steps for store in stores] == [0, 2]
    for store in stores:
        store.close()


def outcome_of_reading(folder: Path, chunks: int) -> str:
    try:
        store = opened(folder)
        sequences = [sequence for sequence, _ in store.scan()]
    except UserError:
        return "refused"
    with ExitStack() as closing:
        closing.callback(store.close)
        buffers = closing.enter_context(store.read(sequences))
        try:
            decoded = [decode(bytes(buffer)) for buffer in buffers]
        except CodecError as error:
            return str(error).split(": its ")[1]
    for chunk, original in zip(decoded, make_episode(0, [2] * chunks), strict=True):
        assert_same(chunk.rows, original.rows)
    return "whole"


@pytest.mark.parametrize("size", [100, 4096, 5000, 40_000, 100_000])
def test_a_cut_file_is_refused_in_one_line(tmp_path: Path, size: int) -> None:
    filled(tmp_path, 20)
    os.truncate(tmp_path / "data.mdb", size)
    with pytest.raises(UserError, match="damaged") as refused:
        opened(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("page", range(12))
def test_a_page_of_garbage_is_refused_or_found_by_a_checksum(tmp_path: Path, page: int) -> None:
    filled(tmp_path, 3)
    with open(tmp_path / "data.mdb", "r+b") as file:
        file.seek(4096 * page)
        file.write(random.Random(page).randbytes(4096))
    assert outcome_of_reading(tmp_path, chunks=3) in ("whole", "refused", "checksum does not match")


def test_something_else_under_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_text("not a database, but long enough to look at\n" * 500)
    with pytest.raises(UserError, match="damaged"):
        opened(tmp_path)


def test_damaged_header_of_a_chunk_is_refused_when_scanned(tmp_path: Path) -> None:
    store = opened(tmp_path)
    data = encode(make_episode(0, [2])[0])
    data[30] ^= 1
    store.append([Entry(0, make_episode(0, [2])[0].key, data, 2)], ())
    with pytest.raises(UserError, match="damaged"):
        store.scan()
    store.close()


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("layout", b""),
        ("layout", b"\xc1"),
        ("layout", b"\x81\x90\x90"),
        ("layout", msgpack.packb([1])),
        ("layout", msgpack.packb({"action": 6})),
        ("inserted_env_steps", b"\xc1"),
        ("inserted_env_steps", b"\xcd"),
        ("inserted_env_steps", msgpack.packb("many")),
    ],
)
def test_a_damaged_fact_is_refused_in_one_line(name: str, written: bytes, tmp_path: Path) -> None:
    filled(tmp_path, 2)
    with lmdb.open(str(tmp_path), max_dbs=3) as environment, environment.begin(write=True) as transaction:
        transaction.put(name.encode(), written, db=environment.open_db(b"facts", transaction))
    reader = LmdbReader(tmp_path)
    with pytest.raises(StoreDamagedError, match=f"damaged \\({name}") as refused:
        getattr(reader, "action_size" if name == "layout" else name)
    reader.close()
    assert "\n" not in str(refused.value)
    if written != msgpack.packb({"action": 6}):  # a layout, if another
        with pytest.raises(StoreDamagedError, match=f"damaged \\({name}"):
            opened(tmp_path)


def test_store_grows_beyond_its_first_map(tmp_path: Path) -> None:
    store = opened(tmp_path)
    chunks = make_episode(0, [40] * 160)  # 78 MB; the first map is 64 MiB
    for sequence, chunk in enumerate(chunks):
        store.append([Entry(sequence, chunk.key, encode(chunk), 80)], ())
    assert store.stored_bytes > 64 * 2**20
    with store.read([0, 159]) as buffers:
        assert_same(decode(buffers[0]).rows, chunks[0].rows)
        assert_same(decode(buffers[1]).rows, chunks[159].rows)
    store.close()


INSERTER = """
import itertools
import sys
from pathlib import Path
from common.config import ReplayConfig
from common.sequence import Chunk, ChunkKey
from replay_service.codec import encode
from replay_service.replay import Replay
from replay_service.stores.lmdb import LmdbStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, STREAM, make_rows

store = LmdbStore(Path(sys.argv[1]), ACTION_SIZE, sync=sys.argv[3])
replay = Replay(
    ReplayConfig(), store=store, action_size=ACTION_SIZE, batch_length=4, action_repeat=REPEAT, seed=0
)
for index in itertools.count(int(sys.argv[2])):
    rows = make_rows(STREAM, 0, 2 * index, 2)
    replay.insert(encode(Chunk(ChunkKey(*STREAM, 0, index), rows, is_last=False)))
    print(index, flush=True)
"""


def insert_until_killed(folder: Path, start: int, sync: str, acknowledgements: int) -> int:
    """Index of the last acknowledged chunk of a process that is killed at some moment after so many."""
    process = subprocess.Popen(
        [sys.executable, "-c", INSERTER, str(folder), str(start), sync], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(acknowledgements):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read()
    assert process.wait() == -signal.SIGKILL
    return start + acknowledgements + rest.count("\n") - 1


@pytest.mark.parametrize("sync", ["always", "interval", "never"])
def test_killed_inserts_leave_every_acknowledged_chunk_exactly_once(tmp_path: Path, sync: str) -> None:
    acknowledged = -1
    for acknowledgements in random.Random(sync).sample(range(5, 120), 3):
        # Like a client whose last answer got lost, each process first sends again what was acknowledged.
        acknowledged = insert_until_killed(tmp_path, max(0, acknowledged), sync, acknowledgements)
        store = opened(tmp_path)
        found = store.scan()
        indices = [header.key.index for _, header in found]
        assert indices in (list(range(acknowledged + 1)), list(range(acknowledged + 2)))  # at most one unanswered
        assert [sequence for sequence, _ in found] == indices
        assert store.marks() == {make_episode(0, [1])[0].key.stream: (0, indices[-1])}
        assert store.inserted_env_steps == 2 * (2 * len(indices) - 1)
        originals = make_episode(0, [2] * (acknowledged + 2))
        with store.read(indices) as buffers:
            for buffer, original in zip(buffers, originals, strict=False):
                assert_same(decode(buffer).rows, original.rows)
        store.close()
