"""How a study treats its children, with a stand-in for `dreamfleet train` that trains nothing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from cluster.studies.grid import Cell, cells
from cluster.studies.runner import Interrupted, Runner
from cluster.studies.study import load_study
from common.lock import InUseError, claim
from common.run_folder import RunFolder

TRAINING = f"""#!{sys.executable}
import json, pathlib, shutil, signal, sys, time

arguments = dict(zip(sys.argv[5::2], sys.argv[6::2]))
folder = pathlib.Path(arguments["--run-dir"])
print("flags", *sys.argv[9:], flush=True)
if "fails" in folder.parts:
    print("it is broken", flush=True)
    sys.exit(3)
folder.mkdir(parents=True, exist_ok=True)
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
shutil.copy(arguments["--config"], folder / "config.yaml")
(folder / "begun").open("a").write("once\\n")
while "waits" in folder.parts and not stopped:
    time.sleep(0.01)
(folder / "summary.json").write_text(json.dumps({{"finished": not stopped}}))
"""


@pytest.fixture
def _training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "training"
    script.write_text(TRAINING)
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


pytestmark = pytest.mark.usefixtures("_training")


def grid(tmp_path: Path, *variants: str, restart: str = "auto") -> list[Cell]:
    file = tmp_path / "study.yaml"
    content = {
        "title": "T",
        "preset": "smoke",
        "tasks": ["walker_walk"],
        "variants": {name: {} for name in variants},
        "seeds": [0],
        "settings": {"runtime": "inline"},
        "restart": restart,
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return cells(load_study(file))


def begun(cell: Cell, out: Path) -> int:
    """How often the run that is in the folder now was begun or resumed."""
    return (cell.folder(out) / "begun").read_text().count("once")


def unfinished(cell: Cell, out: Path) -> None:
    """A run that was killed."""
    RunFolder(cell.folder(out)).create(cell.config)
    (cell.folder(out) / "begun").write_text("once\n")


def test_all_cells_are_run_and_a_second_time_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out = grid(tmp_path, "a", "b"), tmp_path / "out"
    Runner(runs, out, 2, ["--ray-address", "auto"]).run()
    shown = capsys.readouterr().out
    assert shown.startswith("0 of 2 runs are finished\n")
    assert "walker_walk/b/seed_0: finished in 0:0" in shown
    assert (runs[0].desk(out) / "output.log").read_text() == "flags --ray-address auto\n"
    Runner(runs, out, 2, []).run()
    assert capsys.readouterr().out == "2 of 2 runs are finished\n"
    assert [begun(cell, out) for cell in runs] == [1, 1]


def test_a_run_that_fails_is_told_with_its_last_line_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = grid(tmp_path, "fails", "b"), tmp_path / "out"
    runner = Runner(runs, out, 1, [])
    runner.run()
    assert runner.failed == ["walker_walk/fails/seed_0"]
    shown = capsys.readouterr().out
    assert "exit code 3: it is broken" in shown
    assert "walker_walk/b/seed_0: finished" in shown


@pytest.mark.parametrize(("restart", "times"), [("anew", 1), ("resume", 2)])
def test_an_interrupted_run_begins_anew_or_goes_on(tmp_path: Path, restart: str, times: int) -> None:
    (cell,), out = grid(tmp_path, "a", restart=restart), tmp_path / "out"
    unfinished(cell, out)
    Runner([cell], out, 1, []).run()
    assert begun(cell, out) == times
    assert not (cell.desk(out) / "discarded").exists()


def test_a_half_deleted_run_of_a_killed_study_is_cleared_away(tmp_path: Path) -> None:
    (cell,), out = grid(tmp_path, "a"), tmp_path / "out"
    (cell.desk(out) / "discarded" / "replay").mkdir(parents=True)
    Runner([cell], out, 1, []).run()
    assert not (cell.desk(out) / "discarded").exists()


@pytest.mark.parametrize("place", ["desk", "folder"])
def test_a_run_that_another_process_is_at_is_waited_for_and_then_taken_as_it_is(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell, free), out = grid(tmp_path, "a", "b"), tmp_path / "out"
    unfinished(cell, out)
    held = getattr(cell, place)(out)
    held.mkdir(parents=True, exist_ok=True)
    lock = claim(held)
    runner = Runner([cell, free], out, 1, [])
    thread = threading.Thread(target=finish_when, args=(runner, free, cell, out, lock))
    thread.start()
    runner.run()
    thread.join()
    shown = capsys.readouterr().out
    assert shown.count(f"is in use by process {os.getpid()}") == 1
    assert "walker_walk/b/seed_0: finished" in shown, "the others do not wait"
    assert f"{cell.name}: begun" not in shown
    assert runner.failed == []


def finish_when(runner: Runner, free: Cell, cell: Cell, out: Path, lock: int) -> None:
    """Ends the other process' run once the study has got as far as it can."""
    while not (free.folder(out) / "summary.json").exists() or cell.name not in runner.told:
        time.sleep(0.01)
    RunFolder(cell.folder(out)).write_summary({"finished": True})
    os.close(lock)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_child_once_and_nothing_else_is_begun(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = grid(tmp_path, "waits", "b"), tmp_path / "out"
    folder = runs[0].folder(out)
    thread = threading.Thread(target=signal_when, args=(folder / "begun", number))
    thread.start()
    with pytest.raises(Interrupted):
        Runner(runs, out, 1, []).run()
    thread.join()
    assert RunFolder(folder).summary() == {"finished": False}
    assert not runs[1].folder(out).exists()
    assert "walker_walk/waits/seed_0: stopped" in capsys.readouterr().out


def signal_when(file: Path, number: signal.Signals) -> None:
    """Sends this process the signal once the file is there."""
    while not file.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), number)


def test_a_child_holds_its_cell_when_the_study_has_let_go(tmp_path: Path) -> None:
    (cell,), out = grid(tmp_path, "waits"), tmp_path / "out"
    runner = Runner([cell], out, 1, [])
    runner._start_some()  # as a study does that is killed right after
    (run,) = runner.running
    try:
        with pytest.raises(InUseError, match=f"in use by process {run.process.pid}"):
            claim(cell.desk(out))
    finally:
        run.process.kill()
        run.process.wait()
    os.close(claim(cell.desk(out)))
