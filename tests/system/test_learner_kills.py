"""kill -9 of the learner, twenty times at random moments: it goes on from what its checkpoint holds, to the bit."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import psutil
import pytest

from cluster.coordinator import Coordinator
from cluster.main import main
from common.run_folder import RunFolder
from tests.system.test_recovery import on

pytestmark = pytest.mark.slow

KILLS = 20
PATIENCE = 300.0


class Comparing(Coordinator):
    """Asks a learner that has been restored what it holds, before it learns, and holds that against the checkpoint.

    Attributes:
        compared: the updates of the checkpoints, in order.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.compared: list[int] = []
        self.killer = Killer(self)
        self.killer.start()

    def _restore_learner(self) -> None:
        super()._restore_learner()
        held = self.ask_learner("state")
        checkpoint = self.folder.newest_checkpoint()
        assert checkpoint is not None
        assert held == checkpoint.files(), f"not the bytes of the checkpoint at {checkpoint.updates} updates"
        self.compared.append(checkpoint.updates)


class Killer(threading.Thread):
    """Kills the learner's process: three times in four while it learns, else at any moment of its coming back."""

    def __init__(self, coordinator: Comparing) -> None:
        super().__init__(daemon=True)
        self.coordinator = coordinator
        self.killed: set[int] = set()

    def run(self) -> None:
        """Kills, and then asks the run to stop."""
        rng = random.Random(0)
        self._until(lambda: self.coordinator.folder.checkpoint_updates())
        while len(self.killed) < KILLS:
            done = self._done()
            if rng.random() < 0.75:
                self._until(lambda done=done: self._done() > done)  # type: ignore[misc]
            time.sleep(rng.uniform(0.0, 2.0))
            for process in psutil.Process().children(recursive=True):
                if _is_learner(process) and process.pid not in self.killed:
                    process.kill()
                    self.killed.add(process.pid)
                    break
        self._until(lambda: len(self.coordinator.compared) == KILLS)
        self.coordinator.stop_requested = True

    def _done(self) -> float:
        return self.coordinator.telemetry.numbers.counters["updates_total",]

    def _until(self, condition: object) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
            time.sleep(0.02)


def _is_learner(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] == ["ray::Learner"] or process.cmdline()[0].startswith("ray::Learner")
    except (psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
        return False


def test_a_restored_learner_holds_its_checkpoint_to_the_bit_and_trains_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[Comparing] = []

    def comparing(*args: object) -> Comparing:
        runs.append(Comparing(*args))
        return runs[-1]

    monkeypatch.setenv("TINY_STEP_SECONDS", "0.02")
    args = ["train", *on("slow", "--eval-every", "0", "--training.checkpoint-every", "5"), "--run-dir"]
    args.append(str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr("cluster.train.Coordinator", comparing)
        assert main([*args, "--env-steps", "1000000"]) == 0
    summary = RunFolder(tmp_path / "run").summary()
    assert summary is not None
    assert not summary["finished"]
    assert summary["role_restarts"] == {"learner": KILLS}
    assert len(runs[0].compared) == KILLS
    print(f"restored at {runs[0].compared} updates")
    assert main([*args, "--env-steps", str(summary["env_steps"] + 400)]) == 0
    finished = RunFolder(tmp_path / "run").summary()
    assert finished is not None
    assert finished["finished"]
    assert finished["updates"] > summary["updates"]
    versions = [line["weights_version"] for line in RunFolder(tmp_path / "run").metrics() if "weights_version" in line]
    assert versions == sorted(versions)
