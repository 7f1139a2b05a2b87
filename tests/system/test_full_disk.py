"""Whole runs on a small disk, or a small Redis server, that is full for a while, and given room again, or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.run_folder import RunFolder
from replay_service.stores.redis import RedisStore
from tests.full_disk import SmallDisk, small_disk
from tests.redis_server import RedisServer
from tests.system.processes import Training
from tests.system.test_recovery import LONG, assert_whole, chunks_in, on, stored_chunks

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=60) as disk:
        yield disk


def waits(run: Training) -> bool:
    return "the disk takes nothing more" in run.text or "No space left on device; waiting" in run.text


def assert_finished(folder: Path) -> None:
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    chunks = stored_chunks(folder)
    assert_whole(chunks)
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]


def test_a_run_waits_for_room_and_goes_on(tmp_path: Path, disk: SmallDisk) -> None:
    folder = disk.folder / "run"
    with Training(folder, on("slow", "--redis-timeout", "600"), tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
        run.until(lambda: run.stored() > 0)
        for _ in range(2):
            disk.fill(leave=200_000)
            run.until(lambda: waits(run))
            disk.free()
        assert run.end() == 0, run.text
        assert "died" not in run.text
    assert_finished(folder)


def test_a_disk_that_stays_full_ends_the_run_in_one_line_and_the_same_command_resumes(
    tmp_path: Path, disk: SmallDisk
) -> None:
    folder, args = disk.folder / "run", on("slow", "--redis-timeout", "3")
    with Training(folder, args, tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
        run.until(lambda: RunFolder(folder).checkpoint_updates())
        disk.fill()
        assert run.end() == 2, run.text
        last = run.text.strip().splitlines()[-1]
        assert last.startswith("dreamfleet: ")
        assert "(--redis-timeout)" in last
        assert "the same command resumes" in last
        assert "Traceback" not in run.text
    run_folder = RunFolder(folder)
    assert run_folder.newest_checkpoint() is not None
    assert run_folder.skipped == []
    disk.free()
    with Training(folder, args, tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
        assert run.end() == 0, run.text
    assert_finished(folder)


def test_a_full_redis_server_is_waited_for_and_the_run_goes_on_when_it_has_room(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RedisServer(tmp_path / "redis") as server:
        where = ["--replay-store", "redis", "--redis-url", server.url, "--redis-timeout", "600"]
        with Training(folder, on("slow", *where, *LONG), tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
            run.until(lambda: run.stored() > 0)
            server.client().config_set("maxmemory", "1mb")
            run.until(lambda: "used memory > 'maxmemory'; waiting up to 600 s" in run.text)
            server.client().config_set("maxmemory", "100mb")
            assert run.end() == 0, run.text
            assert run.text.count("waiting up to") == 1
            assert "the replay store answers again" in run.text
            assert "died" not in run.text
        summary = RunFolder(folder).summary()
        assert summary is not None
        assert summary["finished"]
        prefix = RunFolder(folder).load_config().redis_prefix
        chunks = chunks_in(RedisStore(server.url, "", f"dreamfleet:{prefix}:0:", action_size=1))
    assert_whole(chunks)
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]
