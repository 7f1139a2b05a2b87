"""A study that is killed with -9 and started again ends in the report of an uninterrupted one, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import yaml

from common.jsonl import JsonLines
from common.run_folder import RunFolder
from tests.cluster.commands import REPOSITORY, command

pytestmark = pytest.mark.slow

SMOKE: dict[str, Any] = {
    "title": "Two tasks",
    "preset": "smoke",
    "tasks": ["tests.tiny:make", "tests.system.faulty:slow"],
    "variants": {"dreamer": {"algorithm": "dreamer"}, "without_value": {"algorithm": "no_value"}},
    "seeds": [0],
    "settings": {
        "runtime": "inline",
        "device": "cpu",
        "env_steps": 600,
        "eval_every": 200,
        "environment": {"action_repeat": 2, "time_limit": 24},
        "training": {"learner_threads": 1, "checkpoint_every": 5, "log_every": 2},
    },
    "report": {"env_steps": [400, 600]},
}
CELLS = [
    f"{task}/{variant}/seed_0"
    for task in ("tests.tiny.make", "tests.system.faulty.slow")
    for variant in ("dreamer", "without_value")
]


class Study(NamedTuple):
    """A running `dreamfleet study`."""

    driver: psutil.Popen
    out: Path
    log: Path

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def until(self, condition: Callable[[], object], seconds: float = 1800.0) -> None:
        """Waits for a condition; fails with what was printed when the study ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.driver.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def lines(self, cell: str) -> int:
        """Lines of metrics that the cell's run has written."""
        return len(JsonLines(self.out / "runs" / cell / "metrics.jsonl").read())

    def end(self, seconds: float = 3600.0) -> None:
        """Waits for success."""
        assert self.driver.wait(seconds) == 0, self.text


@contextmanager
def study(file: Path, out: Path, *args: str) -> Iterator[Study]:
    """`dreamfleet study` in a process group of its own; what is left of it, children included, is killed in the end."""
    log = out.with_suffix(".log")
    with open(log, "a") as output:
        driver = psutil.Popen(
            command(["study", str(file), "--out", str(out), *args]),
            cwd=REPOSITORY,
            env={**os.environ, "TINY_STEP_SECONDS": "0.005"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Study(driver, out, log)
    finally:
        kill_all(driver)


def kill_all(driver: psutil.Popen) -> None:
    """kill -9 of a study and its runs, as when a machine goes away."""
    children = driver.children(recursive=True) if driver.is_running() else []
    for process in [driver, *children]:
        if process.is_running():
            process.kill()
    psutil.wait_procs([driver, *children], timeout=120)


def test_a_killed_study_gives_the_report_of_an_uninterrupted_one(tmp_path: Path) -> None:
    file, out, whole = tmp_path / "smoke.yaml", tmp_path / "killed", tmp_path / "whole"
    file.write_text(yaml.safe_dump(SMOKE, sort_keys=False))
    with study(file, whole, "--jobs", "2") as running:
        running.end()

    with study(file, out) as running:  # killed with its child in the middle of the second cell
        running.until(lambda: running.lines(CELLS[1]) > 1)
    assert f"{CELLS[0]}: finished" in running.text
    interrupted = out / "runs" / CELLS[1]
    assert not (interrupted / "summary.json").exists()

    with study(file, out) as running:  # killed alone, between cells: the child that has just begun lives on
        running.until(lambda: running.text.count("finished in") == 2)
        running.until(lambda: f"{CELLS[2]}: begun" in running.text)
        orphans = running.driver.children()
        running.driver.kill()
        running.driver.wait(120)
        assert [orphan.is_running() for orphan in orphans] == [True]
        assert "1 of 4 runs are finished" in running.text

        with study(file, out) as again:
            again.end()
    assert "2 of 4 runs are finished" in again.text
    assert f"{CELLS[2]}: {out / 'cells' / CELLS[2]} is in use by process {orphans[0].pid}" in again.text
    for name in ("report.md", "report.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert "Incomplete" not in (out / "report.md").read_text()


def test_ctrl_c_ends_with_a_checkpoint_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file, out = tmp_path / "smoke.yaml", tmp_path / "out"
    content = {**SMOKE, "tasks": SMOKE["tasks"][1:], "variants": {"dreamer": {}}, "restart": "resume"}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    cell = "tests.system.faulty.slow/dreamer/seed_0"
    with study(file, out) as running:
        running.until(lambda: running.lines(cell) > 1)
        os.kill(running.driver.pid, signal.SIGINT)
        assert running.driver.wait(1800) == 130, running.text
        assert running.text.endswith("interrupted; the same command goes on\n")
    stopped = RunFolder(out / "runs" / cell)
    summary, checkpoint = stopped.summary(), stopped.newest_checkpoint()
    assert summary is not None
    assert checkpoint is not None
    assert not summary["finished"]
    assert checkpoint.updates == summary["updates"]
    with study(file, out) as running:
        running.end()
        assert f"{cell}: resumed" in running.text
    assert (out / "report.md").exists()


def test_a_cell_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    file, out = tmp_path / "smoke.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({**SMOKE, "tasks": ["tests.tiny:make"]}, sort_keys=False))
    blocked = out / "runs" / "tests.tiny.make" / "dreamer"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("no folder")
    with study(file, out) as running:
        assert running.driver.wait(1800) == 1, running.text
    failed, went_on = "tests.tiny.make/dreamer/seed_0", "tests.tiny.make/without_value/seed_0"
    assert f"{failed}: failed after" in running.text
    assert "as a run folder" in running.text
    assert f"{went_on}: finished in" in running.text
    assert running.text.endswith(f"1 of 2 runs failed: {failed}\n")
    report = (out / "report.md").read_text()
    assert f"**Incomplete: 1 of 2 runs have not finished:** `{failed}`." in report
    assert "| tests.tiny:make | – | " in report
