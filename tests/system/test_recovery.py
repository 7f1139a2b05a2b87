"""Real processes that die, hang and are interrupted. Ray runs locally; only processes of these runs are touched."""

from __future__ import annotations

import collections
import re
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from common.config_io import load_config
from common.run_folder import RunFolder
from common.sequence import Chunk, Rows
from replay_service.codec import decode
from replay_service.stores import Store
from replay_service.stores.lmdb import LmdbStore
from replay_service.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.system.processes import Training
from tests.tiny import SPEED

pytestmark = pytest.mark.slow

TASK = ["--preset", "smoke", "--environment.action-repeat", "2", "--environment.time-limit", "24", "--device", "cpu"]
ENV_STEPS = 2400
LONG = ["--env-steps", str(ENV_STEPS)]
"""At the first line of metrics collectors cannot be done, be the learner ever so slow: they are 1,100 steps ahead."""


def on(task: str, *args: str) -> list[str]:
    return [*TASK, "--task", f"tests.system.faulty:{task}", *args]


def stored_chunks(folder: Path, shard: int = 0) -> list[Chunk]:
    """Every chunk of a shard's embedded store, in the order in which they were inserted, checksums verified."""
    return chunks_in(LmdbStore(folder / "replay" / f"shard-{shard}", action_size=1, sync="always"))


def chunks_in(store: Store) -> list[Chunk]:
    """Every chunk of a store, which is closed."""
    try:
        sequences = [sequence for sequence, _ in store.scan()]
        with store.read(sequences) as buffers:
            chunks = [decode(bytes(data)) for data in buffers]
        held = sum(chunk.rows.env_steps(2) for chunk in chunks)
        assert store.inserted_env_steps == held, "nothing was evicted: every inserted row is here"
        return chunks
    finally:
        store.close()


def assert_whole(chunks: list[Chunk]) -> None:
    """No chunk is missing or doubled, and the rows of an episode follow from one another as the task's rows do."""
    keys = [chunk.key for chunk in chunks]
    assert len(set(keys)) == len(keys)
    episodes: dict[tuple[int, ...], list[Chunk]] = collections.defaultdict(list)
    for chunk in chunks:
        episodes[*chunk.key.stream, chunk.key.episode].append(chunk)
    for parts in episodes.values():
        assert [part.key.index for part in parts] == list(range(len(parts)))
        assert not any(part.is_last for part in parts[:-1])
        assert_follow(Rows.concatenate([part.rows for part in parts]))
    for stream in {key.stream for key in keys}:
        numbers = sorted({key.episode for key in keys if key.stream == stream})
        assert numbers == list(range(len(numbers)))
        for number in numbers[:-1]:
            assert episodes[*stream, number][-1].is_last, "an episode that others of its stream follow is whole"


def assert_follow(rows: Rows) -> None:
    """Each row's picture and reward are those of its action in the state that the row before shows."""
    assert rows.is_first.tolist() == [True] + [False] * (len(rows) - 1)
    columns = (rows.image[:, 26, :, 0] == 250).argmax(axis=1)  # the square's left edge
    x = columns / (64 - 12) * 2.0 - 1.0
    moved = np.clip(x[:-1] + 2 * SPEED * rows.action[1:, 0], -1.0, 1.0)
    assert np.abs(x[1:] - moved).max(initial=0.0) < 0.06, "two control steps of the stored action; pixels round"
    assert ((rows.reward[1:] > 0) & (rows.reward[1:] <= 2)).all()


def test_a_killed_collector_is_replaced_and_the_run_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Training(folder, on("slow", *LONG), tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
        run.until(lambda: run.stored() > 0)
        victim = run.role("Collector")
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        assert run.end() == 0, run.text
        assert "collector 0 died and starts again" in run.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["role_restarts"] == {"collector": 1}
    assert ENV_STEPS - 4 < summary["env_steps"] <= ENV_STEPS
    chunks = stored_chunks(folder)
    assert_whole(chunks)
    assert len({chunk.key.incarnation for chunk in chunks}) == 2


def test_a_killed_learner_comes_back_from_its_checkpoint_and_the_run_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Training(folder, on("slow"), tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
        run.until(lambda: RunFolder(folder).checkpoint_updates())
        victim = run.role("Learner")
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        assert run.end() == 0, run.text
        back = re.search(r"the learner is back at (\d+) updates", run.text)
        assert back is not None, run.text
        assert int(back[1]) >= 20, "from a checkpoint"
        assert int(back[1]) % 20 == 0
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["role_restarts"] == {"learner": 1}
    versions = [line["weights_version"] for line in RunFolder(folder).metrics()]
    assert versions == sorted(versions)
    assert summary["weights_version"] > versions[-1] or summary["weights_version"] == versions[-1]
    assert_whole(stored_chunks(folder))


def test_a_killed_replay_shard_comes_back_on_its_store_and_the_run_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Training(folder, on("slow"), tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
        run.until(lambda: run.stored() > 0)
        victim = run.role("Replay")
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        assert run.end() == 0, run.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    chunks = stored_chunks(folder)
    assert_whole(chunks)
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]


def test_a_replay_that_was_damaged_when_its_shard_died_ends_the_run_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Training(folder, on("slow"), tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
        run.until(lambda: run.stored() > 0)
        victim = run.role("Replay")
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        data = folder / "replay" / "shard-0" / "data.mdb"
        size = data.stat().st_size
        with open(data, "r+b") as file:
            file.seek(2 * 4096)
            file.write(bytes(size - 2 * 4096))
        assert run.end() == 2, run.text
        last = run.text.strip().splitlines()[-1]
        assert last.startswith(f"dreamfleet: {folder / 'replay' / 'shard-0'}: this replay is damaged")
        assert "Traceback" not in run.text


def test_a_killed_redis_server_is_waited_for_and_the_run_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RedisServer(tmp_path / "redis", password="s3cret") as server:
        where = ["--replay-store", "redis", "--redis-url", server.url, "--redis-timeout", "600"]
        training = Training(
            folder, on("slow", *where), tmp_path / "log", TINY_STEP_SECONDS="0.01", DREAMFLEET_REDIS_PASSWORD="s3cret"
        )
        with training as run:
            run.until(lambda: any(line["updates"] > 5 for line in RunFolder(folder).metrics()))
            server.kill()
            run.until(lambda: "waiting up to 600 s" in run.text)
            server.start()
            assert run.end() == 0, run.text
            assert "the replay store answers again" in run.text
        summary = RunFolder(folder).summary()
        assert summary is not None
        assert summary["finished"]
        prefix = RunFolder(folder).load_config().redis_prefix
        chunks = chunks_in(RedisStore(server.url, "s3cret", f"dreamfleet:{prefix}:0:", action_size=1))
    assert_whole(chunks)
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]
    assert not [path for path in folder.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert "s3cret" not in run.text


def test_a_redis_server_that_stays_away_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RedisServer(tmp_path / "redis") as server:
        where = ["--replay-store", "redis", "--redis-url", server.url, "--redis-timeout", "3"]
        with Training(folder, on("slow", *where), tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
            run.until(lambda: any(line["updates"] > 5 for line in RunFolder(folder).metrics()))
            server.kill()
            assert run.end() == 2, run.text
            last = run.text.strip().splitlines()[-1]
            assert last.startswith("dreamfleet: Redis at 127.0.0.1")
            assert "(--redis-timeout); the same command resumes" in last
        newest = RunFolder(folder).newest_checkpoint()
        assert newest is not None
        assert newest.updates > 5
        server.start()
        with Training(folder, on("slow", *where), tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
            assert run.end() == 0, run.text
        prefix = RunFolder(folder).load_config().redis_prefix
        chunks = chunks_in(RedisStore(server.url, "", f"dreamfleet:{prefix}:0:", action_size=1))
    assert_whole(chunks)
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]


def test_kill_9_of_everything_loses_and_doubles_no_acknowledged_row(tmp_path: Path) -> None:
    folder, args = tmp_path / "run", on("slow", "--env-steps", "3000")
    acknowledged: list[int] = []
    before: dict[tuple[int, ...], bytes] = {}
    for _ in range(2):
        with Training(folder, args, tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
            target = run.stored() + 400
            run.until(lambda run=run, target=target: run.stored() >= target)
            acknowledged.append(run.stored())
            run.kill()
        chunks = stored_chunks(folder)
        assert_whole(chunks)
        assert sum(chunk.rows.env_steps(2) for chunk in chunks) >= acknowledged[-1]
        now = {tuple(chunk.key): chunk.rows.image.tobytes() + chunk.rows.action.tobytes() for chunk in chunks}
        assert before.items() <= now.items(), "what an earlier life stored is still there, byte for byte"
        before = now
    with Training(folder, args, tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
        assert run.end() == 0, run.text
    chunks = stored_chunks(folder)
    assert_whole(chunks)
    assert before.keys() <= {tuple(chunk.key) for chunk in chunks}
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]
    lives = [chunk.key.incarnation for chunk in chunks]
    assert len(set(lives)) == 3, "one incarnation a life, none used twice"
    assert lives == sorted(lives)
    lines = RunFolder(folder).metrics()
    assert [line["weights_version"] for line in lines] == sorted(line["weights_version"] for line in lines)
    assert [line["env_steps"] for line in lines] == sorted(line["env_steps"] for line in lines)


def test_ctrl_c_ends_with_a_checkpoint_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder, args = tmp_path / "run", on("slow")
    with Training(folder, args, tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
        run.until(lambda: run.stored() > 0)
        run.interrupt()
        assert run.end() == 0, run.text
        assert "stopping: finishing the calls under way, then a checkpoint" in run.text
        assert "stopped; the same command resumes it" in run.text
        assert "Traceback" not in run.text
        _, left = psutil.wait_procs(run.processes(), timeout=120)
        assert left == [], "no process outlives its run"
    stopped = RunFolder(folder).summary()
    checkpoint = RunFolder(folder).newest_checkpoint()
    assert stopped is not None
    assert checkpoint is not None
    assert not stopped["finished"]
    assert checkpoint.updates == stopped["updates"]
    assert sum(chunk.rows.env_steps(2) for chunk in stored_chunks(folder)) == stopped["env_steps"]
    with Training(folder, args, tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
        assert run.end() == 0, run.text
        assert f"resumed at {stopped['env_steps']:,} environment steps, {stopped['updates']} updates" in run.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["weights_version"] > stopped["weights_version"]
    assert_whole(stored_chunks(folder))


def test_a_hung_environment_is_killed_and_the_run_finishes(tmp_path: Path) -> None:
    folder, fault = tmp_path / "run", tmp_path / "hung"
    args = on("hanging", "--environment.hang-seconds", "15")
    with Training(folder, args, tmp_path / "log", TINY_FAULT_FILE=str(fault)) as run:
        assert run.end() == 0, run.text
        assert "collector 0 died and starts again" in run.text
    assert fault.exists()
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["role_restarts"] == {"collector": 1}
    assert_whole(stored_chunks(folder))


def test_a_collector_that_can_build_no_environment_any_more_is_replaced_and_the_run_finishes(tmp_path: Path) -> None:
    folder, fault = tmp_path / "run", tmp_path / "lost"
    with Training(folder, on("losing"), tmp_path / "log", TINY_FAULT_FILE=str(fault)) as run:
        assert run.end() == 0, run.text
        assert "collector 0 died and starts again in 1 s: environment" in run.text
        assert "cannot be built: RuntimeError('no OpenGL context')" in run.text
    assert fault.exists()
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["role_restarts"] == {"collector": 1}
    assert_whole(stored_chunks(folder))


def test_an_environment_that_raises_is_rebuilt_and_counted(tmp_path: Path) -> None:
    folder, fault = tmp_path / "run", tmp_path / "raised"
    args = on("raising", "--runtime", "inline")
    with Training(folder, args, tmp_path / "log", TINY_FAULT_FILE=str(fault)) as run:
        assert run.end() == 0, run.text
    assert fault.exists()
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["role_restarts"] == {}
    assert sum(line["environment_failures"] for line in RunFolder(folder).metrics()) == 1
    assert load_config(folder / "config.yaml").runtime == "inline"
