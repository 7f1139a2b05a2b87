"""SIGTERM, as a machine that is going away sends it: a checkpoint within 20 seconds, whatever is under way.

The bound here is wider, because tests share their machine; what it took is printed.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from common.run_folder import RunFolder
from replay_service.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.system.processes import Training
from tests.system.test_recovery import assert_whole, chunks_in, on, stored_chunks

pytestmark = pytest.mark.slow

BOUND_SECONDS = 60.0
PATIENCE = 300.0


def terminated(run: Training, code: int = 0) -> RunFolder:
    """Sends SIGTERM to the coordinator alone; the folder of the run that has ended with a checkpoint in time."""
    sent = time.time()
    run.driver.send_signal(signal.SIGTERM)
    assert run.end() == code, run.text
    folder = RunFolder(run.folder)
    checkpoint = folder.newest_checkpoint()
    summary = folder.summary()
    assert checkpoint is not None, run.text
    assert summary is not None
    assert not summary["finished"]
    assert checkpoint.updates == summary["updates"]
    state = checkpoint.path / "state.json"
    print(f"checkpoint after {state.stat().st_mtime - sent:.1f} s, end after {time.time() - sent:.1f} s")
    assert 0 < state.stat().st_mtime - sent < BOUND_SECONDS
    assert "stopping: finishing the calls under way, then a checkpoint" in run.text
    assert f"{run.folder}: stopped; the same command resumes it" in run.text
    assert "Traceback" not in run.text
    _, left = psutil.wait_procs(run.processes(), timeout=120)
    assert left == [], "no process outlives its run"
    return folder


def updates(run: Training) -> int:
    """What the newest line tells."""
    return max((line["updates"] for line in RunFolder(run.folder).metrics()), default=0)


def test_while_a_long_evaluation_is_under_way(tmp_path: Path) -> None:
    args = on("endless", "--environment.time-limit", "100000", "--eval-every", "0")
    with Training(tmp_path / "run", args, tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
        run.until(lambda: updates(run) > 5, PATIENCE)
        folder = terminated(run)
    assert folder.evaluations() == [], "the first one was going on, and would have for hours"


def test_while_a_long_evaluation_is_under_way_in_the_same_process(tmp_path: Path) -> None:
    args = on("endless", "--environment.time-limit", "100000", "--runtime", "inline")
    environment = {"TINY_STEP_SECONDS": "0.01", "TINY_FAULT_FILE": str(tmp_path / "evaluating")}
    with Training(tmp_path / "run", args, tmp_path / "log", **environment) as run:
        run.until((tmp_path / "evaluating").exists, PATIENCE)  # collectors have not come as far as that
        folder = terminated(run)
    assert folder.evaluations() == []


def test_while_the_replay_store_is_away(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        where = ["--replay-store", "redis", "--redis-url", server.url, "--redis-timeout", "600"]
        args = on("slow", *where)
        with Training(tmp_path / "run", args, tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
            run.until(lambda: updates(run) > 5, PATIENCE)
            server.kill()
            run.until(lambda: "waiting up to 600 s" in run.text, PATIENCE)
            folder = terminated(run)
        server.start()
        with Training(tmp_path / "run", args, tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
            assert run.end() == 0, run.text
        prefix = folder.load_config().redis_prefix
        chunks = chunks_in(RedisStore(server.url, "", f"dreamfleet:{prefix}:0:", action_size=1))
    assert_whole(chunks)
    summary = folder.summary()
    assert summary is not None
    assert summary["finished"]
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]


@pytest.mark.parametrize("shards", [1, 2])
def test_while_a_shard_hangs(tmp_path: Path, shards: int) -> None:
    """The only one, or one of two, of which the other answers."""
    args = on("slow", "--replay.shards", str(shards), "--actors", "2")
    with Training(tmp_path / "run", args, tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
        run.until(lambda: updates(run) > 5, PATIENCE)
        hanging = run.roles("Replay")[0]
        hanging.suspend()
        folder = terminated(run)
        assert run.text.count("ending without it; what it had acknowledged stays stored") == 1
    with Training(tmp_path / "run", args, tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
        assert run.end() == 0, run.text
        assert "are lost with the replay store" not in run.text
    chunks = [chunk for shard in range(shards) for chunk in stored_chunks(folder.path, shard)]
    assert_whole(chunks)
    summary = folder.summary()
    assert summary is not None
    assert summary["finished"]
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]


def test_the_second_one_ends_at_once(tmp_path: Path) -> None:
    with Training(tmp_path / "run", on("slow"), tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
        run.until(lambda: RunFolder(run.folder).checkpoint_updates(), PATIENCE)
        learner = run.role("Learner")
        assert learner is not None
        learner.suspend()  # the run waits for it, to save what it has learnt
        run.until(lambda: "learner waits" in run.text or updates(run) > 0, PATIENCE)
        run.driver.send_signal(signal.SIGTERM)
        run.until(lambda: "stopping: " in run.text, PATIENCE)
        run.driver.send_signal(signal.SIGTERM)
        assert run.end() == 130, run.text
        assert run.text.strip().splitlines()[-1] == "dreamfleet: interrupted"
    checkpoint = RunFolder(tmp_path / "run").newest_checkpoint()
    assert checkpoint is not None, "the one that it had"
