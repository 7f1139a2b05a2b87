"""Pickles in the place of whatever is read back: nothing of them is ever run, and what reads them says one line.

A pickle that is loaded makes a file; the tests look for that file.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from common.config import Config, ReplayConfig
from common.config_io import load_config
from common.errors import UserError
from common.jsonl import JsonLines
from common.run_folder import RunFolder
from replay_service.codec import CodecError, decode, encode
from replay_service.replay import Replay
from replay_service.stores.lmdb import LmdbReader, LmdbStore
from replay_service.stores.redis import RedisReader, RedisStore
from tests.redis_server import RedisServer
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, make_episode

PREFIX = "dreamfleet:pickles:0:"


class Trap:
    """Makes a folder when its pickle is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture(params=range(pickle.HIGHEST_PROTOCOL + 1))
def trap(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bytes]:
    """A pickle of each protocol; at the end nobody has fallen for it."""
    sprung = tmp_path / "sprung"
    data = pickle.dumps(Trap(sprung), protocol=request.param)
    yield data
    assert not sprung.exists()
    pickle.loads(data)
    assert sprung.exists(), "it would have told"


def replay_on(store: LmdbStore | RedisStore) -> Replay:
    settings = ReplayConfig(capacity=1000)
    return Replay(settings, store=store, action_size=ACTION_SIZE, batch_length=4, action_repeat=REPEAT, seed=0)


def draw(open_store: Callable[[], LmdbStore | RedisStore]) -> None:
    """Opens a replay and draws from it."""
    store = open_store()
    try:
        replay_on(store).sample(16)
    finally:
        store.close()


def one_line(refused: pytest.ExceptionInfo[UserError]) -> None:
    assert str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_pickle_is_no_chunk(trap: bytes) -> None:
    good = encode(make_episode(0, [4])[0])
    for data in (trap, b"DFC2" + trap, trap.ljust(len(good), b"\0"), bytes(good[:128]) + trap):
        with pytest.raises(CodecError):
            decode(data)


@pytest.mark.parametrize(
    "database, key",
    [
        (b"chunks", struct.pack(">Q", 1)),
        (b"marks", struct.pack(">QQQ", 0, 0, 0)),
        (b"facts", b"layout"),
        (b"facts", b"inserted_env_steps"),
    ],
)
def test_pickles_in_an_lmdb_file_are_refused(tmp_path: Path, trap: bytes, database: bytes, key: bytes) -> None:
    folder = tmp_path / "store"
    store = LmdbStore(folder, ACTION_SIZE, "never")
    replay_on(store).insert(*(encode(chunk) for chunk in make_episode(0, [4, 4, 4])))
    store.close()
    with lmdb.open(str(folder), max_dbs=3) as environment, environment.begin(write=True) as transaction:
        assert transaction.put(key, trap, db=environment.open_db(database, txn=transaction))
    with pytest.raises(UserError) as refused:
        draw(lambda: LmdbStore(folder, ACTION_SIZE, "never"))
    one_line(refused)
    reader = LmdbReader(folder)
    try:
        with pytest.raises(UserError) as refused:
            look(reader)
        one_line(refused)
    finally:
        reader.close()


def look(reader: LmdbReader | RedisReader) -> None:
    """Reads all that a store tells."""
    assert reader.action_size == ACTION_SIZE
    assert reader.inserted_env_steps > 0
    reader.marks()
    with reader.read([number for number, _ in reader.scan()]) as found:
        for data in found:
            decode(bytes(data))


def test_a_pickle_in_the_place_of_an_lmdb_file_or_its_record_is_refused(tmp_path: Path, trap: bytes) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "data.mdb").write_bytes(trap)
    (tmp_path / "record").mkdir()
    store = LmdbStore(tmp_path / "record", ACTION_SIZE, "interval")
    replay_on(store).insert(encode(make_episode(0, [4])[0]))
    store.close()
    (tmp_path / "record" / "flushed").write_bytes(trap.ljust(9000, b"."))
    for name in ("file", "record"):
        with pytest.raises(UserError, match="damaged") as refused:
            draw(lambda name=name: LmdbStore(tmp_path / name, ACTION_SIZE, "interval"))
        one_line(refused)


@pytest.mark.parametrize(
    "name, field",
    [
        ("chunk:1", None),
        ("index", struct.pack(">Q", 1)),
        ("marks", struct.pack(">QQQ", 0, 0, 0)),
        ("facts", "layout"),
        ("facts", "inserted_env_steps"),
    ],
)
def test_pickles_on_a_redis_server_are_refused(
    redis_server: RedisServer, trap: bytes, name: str, field: str | bytes | None
) -> None:
    client = redis_server.client()
    client.flushall()
    store = RedisStore(redis_server.url, "", PREFIX, ACTION_SIZE)
    replay = replay_on(store)
    replay.insert(*(encode(chunk) for chunk in make_episode(0, [4, 4, 4])))
    if field is None:
        client.set(PREFIX + name, trap)
    else:
        client.hset(PREFIX + name, field, trap)  # type: ignore[arg-type]  # a field may be bytes
    with pytest.raises(UserError) as refused:
        draw(lambda: RedisStore(redis_server.url, "", PREFIX, ACTION_SIZE))
    one_line(refused)
    with pytest.raises(UserError) as refused:
        look(RedisReader(redis_server.url, "", PREFIX))
    one_line(refused)
    if field is None:  # it is read by a shard that goes on, too
        with pytest.raises(UserError) as refused:
            replay.sample(16)
        one_line(refused)
    store.close()


def test_pickles_in_a_run_folder_are_refused(tmp_path: Path, trap: bytes) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(Config())
    for name in ("state.json", "parameters.safetensors"):
        path = folder.write_checkpoint(10, {"parameters.safetensors": b"parameters"}, {"env_steps": 1})
        (path / name).write_bytes(trap)
        assert folder.newest_checkpoint() is None
        assert folder.skipped == [path]
    (tmp_path / "config.yaml").write_bytes(trap)
    with pytest.raises(UserError) as refused:
        load_config(tmp_path / "config.yaml")
    one_line(refused)
    (tmp_path / "metrics.jsonl").write_bytes(trap)
    assert all(isinstance(record, dict) for record in tolerant(JsonLines(tmp_path / "metrics.jsonl")))


def tolerant(lines: JsonLines) -> list[object]:
    """The records, or none where something else wrote into the file."""
    try:
        return list(lines.read())
    except ValueError:
        return []


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.mkdir", "!!python/module:os"])
def test_yaml_makes_no_objects(tmp_path: Path, tag: str) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "config.yaml").write_text(f"task: {tag} [{sprung}]\n")
    with pytest.raises(UserError) as refused:
        load_config(tmp_path / "config.yaml")
    one_line(refused)
    assert not sprung.exists()


def test_no_room_loads_pickles() -> None:
    root = Path(__file__).parents[2]
    loads = re.compile(
        r"\b(pickle|cloudpickle|marshal|shelve|dill|joblib)\b|(?<!safetensors\.)torch\.load\(|allow_pickle"
    )
    rooms = ("common", "replay_service", "learner", "actors", "cluster")
    sources = [path for room in rooms for path in (root / room).rglob("*.py")]
    assert len(sources) > 100
    lines = [line for path in sources for line in path.read_text().splitlines()]
    assert [line for line in lines if "import" in line.split() or "(" in line if loads.search(line)] == []
