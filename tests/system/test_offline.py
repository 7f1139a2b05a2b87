"""Offline runs in the Ray runtime, with processes that die."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from common.run_folder import RunFolder
from tests.cluster.stored_runs import stored_run
from tests.replay_service.episodes import make_episode
from tests.system.processes import Training

pytestmark = pytest.mark.slow

FLAGS = ["--preset", "smoke", "--task", "tests.tiny:make", "--environment.action-repeat", "2", "--device", "cpu"]
FLAGS += ["--environment.time-limit", "24", "--replay-store", "memory", "--env-steps", "8000"]
UPDATES = 5 + 380


def killed(training: Training, kind: str) -> None:
    process = training.role(kind)
    assert process is not None
    process.kill()
    psutil.wait_procs([process], timeout=120)


def test_a_shard_and_a_learner_that_are_killed_come_back_and_every_update_is_done(tmp_path: Path) -> None:
    stored_run(tmp_path / "source", [chunk for n in range(12) for chunk in make_episode(n, [9, 8], action_size=1)])
    folder = tmp_path / "run"
    flags = [*FLAGS, "--offline", str(tmp_path / "source")]
    with Training(folder, flags, tmp_path / "output") as training:
        training.until(lambda: "384 environment steps of" in training.text and training.stored() > 1000)
        assert training.role("Collector") is None
        killed(training, "Replay")
        training.until(lambda: training.text.count("384 environment steps of") == 2)
        killed(training, "Learner")
        training.until(lambda: "the learner is back at" in training.text)
        assert training.end() == 0, training.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert (summary["finished"], summary["updates"], summary["env_steps"]) == (True, UPDATES, 8000)
