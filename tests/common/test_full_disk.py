"""The run folder on a disk that is really full."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import Config
from common.errors import UserError
from common.room import Room
from common.run_folder import RunFolder
from tests.full_disk import SmallDisk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", megabytes=4) as disk:
        yield disk


@pytest.fixture
def folder(disk: SmallDisk) -> RunFolder:
    """A run with a checkpoint and a line of metrics."""
    folder = RunFolder(disk.folder / "run")
    folder.create(Config())
    folder.write_checkpoint(10, {"weights": b"w" * 100_000}, {"env_steps": 100})
    folder.append_metrics({"env_steps": 100})
    return folder


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}


def test_a_full_disk_is_one_line_and_leaves_the_folder_as_it_was(folder: RunFolder, disk: SmallDisk) -> None:
    before = contents(folder)
    disk.fill()
    for write in (
        lambda: folder.write_checkpoint(20, {"weights": b"w" * 100_000}, {"env_steps": 200}),
        lambda: folder.append_metrics({"env_steps": 200, "note": "n" * 8192}),
        lambda: folder.append_evaluation({"mean": 1.0}),
        lambda: folder.write_summary({"finished": True}),
        lambda: folder.create(Config(seed=1)),
    ):
        with pytest.raises(UserError, match=r"^cannot write [^\n]*: No space left on device; make room, and the same"):
            write()
    disk.free()
    assert folder.metrics() == [{"env_steps": 100}]
    folder.append_metrics({"env_steps": 200})  # cuts off what of a line was still written
    assert folder.metrics() == [{"env_steps": 100}, {"env_steps": 200}]
    after = {name: content for name, content in contents(folder).items() if content}
    assert {name for name in after if after[name] != before.get(name)} == {str(folder.path / "metrics.jsonl")}
    assert after.keys() == before.keys()
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert newest.updates == 10
    assert folder.skipped == []


def test_with_patience_a_write_waits_for_room_and_says_so_once(folder: RunFolder, disk: SmallDisk) -> None:
    said: list[str] = []
    pauses: list[None] = []
    folder.room = Room(20.0, said.append, lambda: pauses.append(None))
    disk.fill()
    freed = threading.Timer(1.2, disk.free)
    freed.start()
    folder.write_checkpoint(20, {"weights": b"w" * 100_000}, {"env_steps": 200})
    freed.join()
    assert [line.partition(": ")[2] for line in said] == ["No space left on device; waiting up to 20 s for room", ""]
    assert said[1] == "the disk has room again"
    assert len(pauses) >= 2
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert newest.updates == 20


def test_patience_ends(folder: RunFolder, disk: SmallDisk) -> None:
    folder.room = Room(1.0, lambda _: None)
    disk.fill()
    with pytest.raises(UserError, match=r"waited 1 s \(--redis-timeout\); make room, and the same command resumes"):
        folder.write_checkpoint(20, {"weights": b"w" * 100_000}, {})


def test_another_refusal_is_not_waited_for(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.room = Room(60.0)
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(UserError, match=r"^cannot write .*summary.json: Is a directory$"):
        folder.write_summary({})
