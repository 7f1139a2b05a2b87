"""`dreamfleet replay import`: everything once, in order, and nothing of a run that is there is lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.main import main
from cluster.replay_data.import_action import FIRST_IMPORTED_ACTOR
from common.run_folder import RunFolder
from common.sequence import Chunk
from replay_service.replay import Replay
from tests.cluster.commands import SMALL_RUN, one_line_and_exit_2, snapshot, train
from tests.cluster.stored_runs import TINY, chunks_of, on_redis, stored_run
from tests.redis_server import RedisServer
from tests.replay_service.episodes import assert_same, make_episode
from tests.replay_service.sources import some_chunks

CHUNKS = [replace(chunk, rows=replace(chunk.rows, action=chunk.rows.action[:, :1])) for chunk in some_chunks()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset of nine chunks, 44 environment steps."""
    stored_run(tmp_path / "source", CHUNKS)
    assert main(["replay", "export", str(tmp_path / "source"), "--out", str(tmp_path / "data")]) == 0
    return tmp_path / "data"


def importing(data: Path, folder: Path, *args: str) -> list[str]:
    return ["replay", "import", str(data), "--run-dir", str(folder), *args]


def assert_holds_the_data(chunks: list[Chunk]) -> None:
    """The chunks as they are but for their actors' numbers, which no run gives."""
    assert [chunk.key[1:] for chunk in chunks] == [chunk.key[1:] for chunk in CHUNKS]
    assert all(FIRST_IMPORTED_ACTOR <= chunk.key.actor < 2 * FIRST_IMPORTED_ACTOR for chunk in chunks)
    for chunk, original in zip(chunks, CHUNKS, strict=True):
        assert chunk.is_last == original.is_last
        assert_same(chunk.rows, original.rows)


def test_a_new_run_begins_with_the_data_and_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(importing(data, folder, *SMALL_RUN, "--final-eval-episodes", "1")) == 0
    assert capsys.readouterr().out.endswith(f"{folder}: 44 environment steps imported\n")
    assert_holds_the_data(chunks_of(folder))
    assert main(["replay", "verify", str(folder)]) == 0
    assert main(train(folder, "--final-eval-episodes", "1")) == 0
    assert "taking up 44 environment steps from the replay store" in capsys.readouterr().out
    assert_holds_the_data(chunks_of(folder)[: len(CHUNKS)])
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["env_steps"] == 1200


def test_the_same_command_again_stores_nothing_twice(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(importing(data, tmp_path / "run", *SMALL_RUN)) == 0
    assert capsys.readouterr().out.endswith("run: 0 environment steps imported; the other 44 were there already\n")
    assert_holds_the_data(chunks_of(tmp_path / "run"))


@pytest.mark.parametrize("after", [0, 1])
def test_an_interrupted_import_goes_on_where_it_was(
    data: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, calls = Replay.insert, list[int]()

    def interrupted(replay: Replay, *chunks: bytes) -> int:
        calls.append(len(chunks))
        if len(calls) > after:
            raise KeyboardInterrupt
        return insert(replay, *chunks)

    with monkeypatch.context() as patch:
        patch.setattr(Replay, "insert", interrupted)
        assert main(importing(data, tmp_path / "run", *SMALL_RUN)) == 130
    assert len(chunks_of(tmp_path / "run")) == sum(calls[:after]) < len(CHUNKS)
    assert main(importing(data, tmp_path / "run")) == 0
    assert_holds_the_data(chunks_of(tmp_path / "run"))


def test_a_run_that_is_there_needs_no_flags_and_keeps_what_it_has(data: Path, tmp_path: Path) -> None:
    own = make_episode(7, [9, 8], action_size=1)
    stored_run(tmp_path / "run", own)
    before = (tmp_path / "run/config.yaml").read_text()
    assert main(importing(data, tmp_path / "run")) == 0
    kept, imported = chunks_of(tmp_path / "run")[:2], chunks_of(tmp_path / "run")[2:]
    assert [chunk.key for chunk in kept] == [chunk.key for chunk in own]
    assert_holds_the_data(imported)
    assert (tmp_path / "run/config.yaml").read_text() == before


def test_what_the_run_holds_is_not_pushed_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = [chunk for n in range(20) for chunk in make_episode(n, [9, 8], action_size=1)]
    roomy, tight = (replace(TINY, replay=replace(TINY.replay, capacity=640 + more)) for more in (44, 42))
    stored_run(tmp_path / "tight", own, config=tight)
    line = one_line_and_exit_2(importing(data, tmp_path / "tight"), capsys)
    assert "44 environment steps would push 2 of the 640 that the run's shard holds out of --replay.capacity" in line
    assert line.endswith("with at least 684")
    assert [chunk.key for chunk in chunks_of(tmp_path / "tight")] == [chunk.key for chunk in own]
    stored_run(tmp_path / "roomy", own, config=roomy)
    for _ in range(2):  # what is there already needs no room
        assert main(importing(data, tmp_path / "roomy")) == 0
    assert len(chunks_of(tmp_path / "roomy")) == len(own) + len(CHUNKS)


def test_two_datasets_of_the_same_keys_are_two(data: Path, tmp_path: Path) -> None:
    stored_run(tmp_path / "other", [replace(c, rows=replace(c.rows, reward=c.rows.reward + 1)) for c in CHUNKS])
    assert main(["replay", "export", str(tmp_path / "other"), "--out", str(tmp_path / "second")]) == 0
    for dataset in (data, tmp_path / "second"):
        assert main(importing(dataset, tmp_path / "run", *SMALL_RUN)) == 0
    assert len(chunks_of(tmp_path / "run")) == 2 * len(CHUNKS)
    assert main(["replay", "verify", str(tmp_path / "run")]) == 0


def test_onto_redis_and_over_shards(data: Path, tmp_path: Path, redis_server: RedisServer) -> None:
    config = on_redis(redis_server, tmp_path.name)
    config = replace(config, replay=replace(config.replay, shards=2), actors=2)
    RunFolder(tmp_path / "run").create(config)
    assert main(importing(data, tmp_path / "run")) == 0
    assert_holds_the_data(chunks_of(tmp_path / "run"))


# What cannot be


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--task", "tests.tiny:Tiny"], "data: it is of task tests.tiny:make, this run of task tests.tiny:Tiny"),
        (["--environment.action-repeat", "1"], "it is with an action repeat of 2, this run with an action repeat of 1"),
        (["--replay-store", "memory"], "the memory store would forget what is imported"),
        (["--offline", "x"], "takes its data from there: import into another run"),
        (["--replay.sharks", "2"], "--replay.shards"),
        (["--env-steps", "0"], "--env-steps must be positive"),
        (["--replay-store", "redis"], "needs --redis-url"),
        (["--preset", "smok"], "did you mean smoke"),
    ],
)
def test_settings_that_do_not_fit(
    data: Path, tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in one_line_and_exit_2(importing(data, tmp_path / "run", *SMALL_RUN, *flags), capsys)
    assert not (tmp_path / "run").exists()


def test_data_that_do_not_fit(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"

    def refusal(of: Path) -> str:
        line = one_line_and_exit_2(importing(of, run, *SMALL_RUN), capsys)
        assert not run.exists()
        return line

    stored_run(tmp_path / "wide", some_chunks())
    assert main(["replay", "export", str(tmp_path / "wide"), "--out", str(tmp_path / "three")]) == 0
    assert "with actions of size 3, this run with actions of size 1" in refusal(tmp_path / "three")
    long = [chunk for n in range(310) for chunk in make_episode(n, [9, 8], action_size=1)]
    stored_run(tmp_path / "long", long, config=replace(TINY, replay=replace(TINY.replay, capacity=20_000)))
    assert main(["replay", "export", str(tmp_path / "long"), "--out", str(tmp_path / "much")]) == 0
    assert "it holds more than --replay.capacity: 9,920 environment steps" in one_line_and_exit_2(
        importing(tmp_path / "much", run, *SMALL_RUN, "--replay.capacity", "9000"), capsys
    )
    assert "is no dataset: it has no dataset.json" in refusal(tmp_path / "wide")
    path = data / "000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    assert "000002.safetensors differs from what was written" in refusal(data)
    manifest = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**manifest, "version": 2}))
    assert "version 2 is not 1" in refusal(data)
    shutil.rmtree(data)
    assert "is no dataset" in refusal(data)


def test_a_run_in_use_and_a_run_of_other_settings(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(importing(data, folder, *SMALL_RUN)) == 0
    words = "begun with --training.batch-length 8, not 9"
    assert words in one_line_and_exit_2(importing(data, folder, *SMALL_RUN, "--training.batch-length", "9"), capsys)
    before = snapshot(folder)
    owner = RunFolder(folder)
    owner.lock()
    assert "is in use by process" in one_line_and_exit_2(importing(data, folder), capsys)
    owner.unlock()
    before.pop(".lock")
    after = snapshot(folder)
    after.pop(".lock")
    assert after == before


def test_a_server_that_is_away(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--replay-store", "redis", "--redis-url", "redis://localhost:1"]
    assert "Redis at localhost:1 cannot be used" in one_line_and_exit_2(
        importing(data, tmp_path / "run", *SMALL_RUN, *flags), capsys
    )
    assert not (tmp_path / "run").exists()
