"""`dreamfleet replay stats`, `verify` and `export`, on every kind of replay data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.main import main
from cluster.replay import ACTIONS
from common.sequence import Chunk, StreamKey
from replay_service.codec import encode
from replay_service.datasets.dataset import Dataset
from replay_service.replay import open_replay
from replay_service.stock import in_order
from tests.cluster.commands import one_line_and_exit_2, snapshot
from tests.cluster.stored_runs import TINY, on_redis, stored_run
from tests.redis_server import RedisServer
from tests.replay_service.episodes import ACTION_SIZE, assert_same, make_episode
from tests.replay_service.sources import some_chunks

SECOND_SHARD = make_episode(3, [9], StreamKey(1, 1, 0))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two shards on disk."""
    stored_run(tmp_path / "run", some_chunks(), SECOND_SHARD)
    return tmp_path / "run"


@pytest.fixture(params=["lmdb", "redis", "url", "dataset"])
def data(request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer) -> Iterator[list[str]]:
    """What to name, and which flags to give, for the same chunks kept in each way."""
    config = TINY if request.param in ("lmdb", "dataset") else on_redis(redis_server, tmp_path.name)
    stored_run(tmp_path / "run", some_chunks(), SECOND_SHARD, config=config)
    match request.param:
        case "dataset":
            assert main(["replay", "export", str(tmp_path / "run"), "--out", str(tmp_path / "before")]) == 0
            yield [str(tmp_path / "before")]
        case "url":
            yield [f"{redis_server.url}#{tmp_path.name}", "--action-repeat", "2"]
        case _:
            yield [str(tmp_path / "run")]


def out_of(args: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    assert main(["replay", *args]) == code
    return capsys.readouterr().out


def test_stats_counts_what_is_held(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(out_of(["stats", *data, "--batch-length", "4", "--json"], capsys))
    total = found["total"]
    assert (found["action_size"], found["action_repeat"], found["batch_length"]) == (ACTION_SIZE, 2, 4)
    assert (total["chunks"], total["rows"], total["env_steps"], total["inserted_env_steps"]) == (10, 35, 60, 60)
    assert (total["episodes"], total["open_episodes"], total["fragments"]) == (3, 1, 1)
    assert total["windows"] == 14 + 6
    assert sum(shard["rows"] for shard in found["shards"]) == 35
    assert found["episode_env_steps"]["count"] == found["episode_return"]["count"] == 3
    assert (found["episode_return"]["lowest"], found["episode_return"]["highest"]) == (6.0, 27_036.0)


def test_stats_draws_both_histograms(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = out_of(["stats", *data], capsys)
    assert shown.startswith(f"{data[0]}: ")
    assert "episode return: 3 whole episodes, mean 9,026.0, 6.0 to 27,036.0" in shown
    assert "episode length, environment steps: 3 whole episodes" in shown
    assert shown.count("█") == 2 * (40 + 20)  # in each, two values in one bin and the third in another


def test_stats_takes_the_runs_own_batch_length(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "windows of 8 rows" in out_of(["stats", str(run)], capsys)


def test_stats_of_an_empty_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path / "run", make_episode(0, [2], ends=False))
    assert "episode return: no episode is held whole" in out_of(["stats", str(tmp_path / "run")], capsys)


def test_stats_says_which_returns_are_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunks = make_episode(0, [4, 3])
    chunks[0].rows.reward[2] = np.inf
    stored_run(tmp_path / "run", chunks)
    assert "episode return: of 1 whole episodes it is not finite\n" in out_of(["stats", str(tmp_path / "run")], capsys)
    found = json.loads(out_of(["stats", str(tmp_path / "run"), "--json"], capsys))["episode_return"]
    assert (found["count"], found["mean"], found["not_finite"]) == (0, None, 1)


def test_verify_finds_everything_good(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert out_of(["verify", *data], capsys) == f"{data[0]}: 10 of 10 chunks are good\n"
    assert json.loads(out_of(["verify", *data, "--json"], capsys)) == {
        "chunks": 10, "good": 10, "damaged": [], "evicted": 0, "contradictions": [],
    }  # fmt: skip


def test_export_writes_every_chunk(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--task", "tests.tiny:make"] if "#" in data[0] else []
    shown = out_of(["export", *data, "--out", str(tmp_path / "data"), *flags], capsys)
    assert shown == f"{tmp_path / 'data'}: 3 episodes and 2 fragments, 10 chunks, 60 environment steps\n"
    exported = Dataset(tmp_path / "data")
    exported.check()
    assert exported.facts.task == "tests.tiny:make"
    by_key = {stored.key: exported.chunk(stored) for stored in in_order(exported.stocks())}
    for chunk in [*some_chunks(), *SECOND_SHARD]:
        assert_same(by_key[chunk.key].rows, chunk.rows)


def flip(file: Path, chunk: Chunk) -> None:
    """Flips a bit of a stored chunk's pixels on the disk."""
    content = bytearray(file.read_bytes())
    place = content.find(chunk.rows.image[0].tobytes())
    content[place + 5000] ^= 1
    file.write_bytes(content)


def test_damage_on_the_disk_is_named_left_out_and_exit_1(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(run / "replay/shard-0/data.mdb", some_chunks()[3])
    shown = out_of(["verify", str(run)], capsys, code=1).splitlines()
    name = "shard 0, chunk 3 (actor 0, incarnation 0, environment 1, episode 0, index 1)"
    assert shown[0].startswith(f"{name}: ")
    assert shown[1:] == [f"{run}: 9 of 10 chunks are good"]
    assert main(["replay", "export", str(run), "--out", str(run.parent / "data")]) == 1
    assert capsys.readouterr().err.startswith(f"left out: {name}: ")
    exported = Dataset(run.parent / "data")
    assert len(exported.chunks) == 9
    exported.check()


def test_a_hole_in_an_episode_is_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path / "run", [chunk for n, chunk in enumerate(make_episode(0, [3, 2, 4])) if n != 1])
    shown = out_of(["verify", str(tmp_path / "run")], capsys, code=1)
    assert "what comes before it in its episode is missing: index 1\n" in shown
    assert shown.endswith("2 of 2 chunks are good\n")


def test_damage_in_a_dataset_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["replay", "export", str(run), "--out", str(run.parent / "data")])
    path = run.parent / "data/000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x09")
    shown = out_of(["verify", str(run.parent / "data")], capsys, code=1).splitlines()
    assert len(shown) == 3  # the file's two chunks
    assert "000002.safetensors differs from what was written" in shown[0]
    error = one_line_and_exit_2(["replay", "stats", str(run.parent / "data")], capsys)
    assert "dreamfleet replay verify names every damaged chunk" in error


@pytest.mark.parametrize(("start", "stop"), [(0, 64), (0, 2 * 4096), (2 * 4096, None), (4096, 40960)])
def test_damage_that_lmdb_would_crash_over_is_one_line(
    run: Path, start: int, stop: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run / "replay/shard-0/data.mdb"
    content = bytearray(file.read_bytes())
    content[start:stop] = np.random.default_rng(0).bytes(len(content[start:stop]))
    file.write_bytes(content)
    for action in (["stats"], ["export", "--out", str(run.parent / "data")]):
        assert "data.mdb is damaged: " in one_line_and_exit_2(["replay", *action, str(run)], capsys)
    assert not (run.parent / "data").exists()
    shown = out_of(["verify", str(run)], capsys, code=1).splitlines()
    assert "data.mdb is damaged: " in shown[0]
    assert shown[1:] == [f"{run}: 0 of 0 chunks are good"]


def test_a_cut_and_an_empty_file_are_damage(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for size in (100_000, 0):
        os.truncate(run / "replay/shard-1/data.mdb", size)
        assert "shard-1/data.mdb is damaged: " in out_of(["verify", str(run)], capsys, code=1)


@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_a_damaged_header_is_damage_that_names_its_chunk(
    store: str, tmp_path: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = TINY if store == "lmdb" else on_redis(redis_server, tmp_path.name)
    stored_run(run, some_chunks(), config=config)
    name = (4).to_bytes(8, "big")
    if store == "redis":
        index = f"dreamfleet:{tmp_path.name}:0:index"
        entry = redis_server.client().hget(index, name)
        redis_server.client().hset(index, name, entry[:-3] + b"\x07\x07\x07")
    else:
        file = run / "replay/shard-0/data.mdb"
        content = bytearray(file.read_bytes())
        header = content.find(encode(some_chunks()[4])[:64].tobytes())
        content[header + 30] ^= 1
        file.write_bytes(content)
    shown = out_of(["verify", str(run)], capsys, code=1)
    assert "chunk 4: the chunk's header is cut or damaged" in shown
    assert "chunk 4: " in one_line_and_exit_2(["replay", "stats", str(run)], capsys)


def test_looking_changes_nothing_and_needs_no_lock(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: digest for name, digest in snapshot(run).items() if not name.endswith("lock.mdb")}
    for action in (["stats"], ["verify"], ["export", "--out", str(run.parent / "data")]):
        assert main(["replay", *action, str(run)]) == 0
    assert before == {name: digest for name, digest in snapshot(run).items() if not name.endswith("lock.mdb")}


BAD = [
    (["nowhere"], "nowhere is no run folder, no dataset and no redis://host:port#PREFIX"),
    (["redis://localhost:6379"], "name the run's keys behind the servers: redis://host:port#PREFIX"),
    (["redis://localhost:6379/my-run"], "name the run's keys behind the servers: redis://host:port#PREFIX"),
    (["redis://me:secret@localhost:6379#x", "--action-repeat", "2"], "must hold no password"),
    (["redis://me:se#secret@localhost:1#x", "--action-repeat", "2"], "must hold no password"),
    (["redis://me:se#secret@localhost:1"], "must hold no password"),
    (["redis://me:se/secret@localhost:1#x"], "must hold no password"),
    (["redis://localhost:1#x", "--action-repeat", "2"], "Redis at localhost:1 cannot be used"),
    (["redis://localhost:6379#a b", "--action-repeat", "2"], "--redis-prefix may hold"),
    (["redis://localhost:6379#x"], "does not tell the run's action repeat: give --action-repeat"),
    (["http://localhost#x", "--action-repeat", "2"], "is not redis://host:port"),
    ([], "Missing from dreamfleet replay"),
]


@pytest.mark.parametrize("action", ["stats", "verify", "export"])
@pytest.mark.parametrize(("args", "words"), BAD)
def test_what_is_no_replay_data(
    tmp_path: Path, action: str, args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "data"), "--task", "x"] if action == "export" and args else []
    if "nowhere" in args:
        out = out[:2]
    line = one_line_and_exit_2(["replay", action, *args, *out], capsys)
    assert words in line
    assert "secret" not in line
    assert not any(tmp_path.iterdir())


def test_a_prefix_without_keys(redis_server: RedisServer, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"{redis_server.url}#no-such-run"
    words = "holds no replay under the prefix no-such-run"
    assert words in one_line_and_exit_2(["replay", "stats", where, "--action-repeat", "2"], capsys)


def test_a_password_is_asked_for_and_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(tmp_path / "server", password="secret") as server:
        config = on_redis(server, "x")
        replay = open_replay(config, None, 0, ACTION_SIZE, "secret")
        replay.insert(*map(encode, some_chunks()))
        where = ["replay", "verify", f"{server.url}#x", "--action-repeat", "2"]
        assert "DREAMFLEET_REDIS_PASSWORD" in one_line_and_exit_2(where, capsys)
        (tmp_path / "password").write_text("secret\n")
        assert main([*where, "--redis-password-file", str(tmp_path / "password")]) == 0
        monkeypatch.setenv("DREAMFLEET_REDIS_PASSWORD", "secret")
        assert main(where) == 0
        replay.insert(encode(SECOND_SHARD[0]))  # looking has not taken the writer's place


def test_a_memory_store_keeps_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path, some_chunks(), config=replace(TINY, replay_store="memory"))
    assert "memory store keeps nothing" in one_line_and_exit_2(["replay", "stats", str(tmp_path)], capsys)


def test_flags_that_a_run_folder_answers_itself_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--task and --action-repeat go with redis://host:port#PREFIX"
    assert words in one_line_and_exit_2(["replay", "stats", str(run), "--action-repeat", "4"], capsys)


def test_export_needs_a_new_folder_and_a_task(
    run: Path, tmp_path: Path, redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/precious").write_text("mine")
    args = ["replay", "export", str(run), "--out", str(tmp_path / "data")]
    assert "data is there already" in one_line_and_exit_2(args, capsys)
    args = ["replay", "export", str(run), "--out", str(tmp_path / "data/precious/x")]
    assert "cannot write" in one_line_and_exit_2(args, capsys)
    stored_run(tmp_path / "other", some_chunks(), config=on_redis(redis_server, tmp_path.name))
    args = ["replay", "export", f"{redis_server.url}#{tmp_path.name}", "--out", str(tmp_path / "x")]
    assert "does not tell the run's task: give --task" in one_line_and_exit_2([*args, "--action-repeat", "2"], capsys)


@pytest.mark.parametrize("args", [["stat"], ["stats", ".", "--batch-length", "-1"], ["stats", ".", "--jsn"]])
def test_bad_actions_and_flags(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    one_line_and_exit_2(["replay", *args], capsys)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay"]) == 2
    assert main(["replay", "--help"]) == 0
    shown = capsys.readouterr().out
    for action in ACTIONS:
        assert action in shown
        with pytest.raises(SystemExit):
            main(["replay", action, "--help"])
