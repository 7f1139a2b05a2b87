"""A run with two learners that share each batch: to its end, and through the death of either."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from common.run_folder import RunFolder
from tests.system.processes import Training

pytestmark = pytest.mark.slow

TASK = ["--preset", "smoke", "--environment.action-repeat", "2", "--environment.time-limit", "24", "--device", "cpu"]
TWO = [*TASK, "--task", "tests.system.faulty:slow", "--learners", "2", "--env-steps", "2400"]


def test_either_learners_death_stops_the_run_in_one_line_with_a_checkpoint_and_it_resumes_to_its_end(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    for number, kind in ((2, "Follower"), (1, "Learner")):
        before = max(RunFolder(folder).checkpoint_updates(), default=0)
        with Training(folder, TWO, tmp_path / "log", TINY_STEP_SECONDS="0.02") as run:
            run.until(lambda before=before: max(RunFolder(folder).checkpoint_updates(), default=0) > before)
            victim = run.role(kind)
            assert victim is not None
            victim.send_signal(signal.SIGKILL)
            assert run.end() == 2, run.text
            last = run.text.strip().splitlines()[-1]
            newest = RunFolder(folder).newest_checkpoint()
            assert newest is not None
            assert last == (
                f"dreamfleet: learner {number} of 2 died, and the run has stopped; its checkpoint is at "
                f"{newest.updates} updates; the same command resumes, or one with other --learners"
            )
            assert "Traceback" not in run.text
            parameters = safetensors.numpy.load(newest.read("parameters.safetensors"))
            assert all(np.isfinite(values).all() for values in parameters.values())
            optimisers = safetensors.numpy.load(newest.read("optimisers.safetensors"))
            steps = {name: int(value) for name, value in optimisers.items() if name.endswith(".step")}
            assert set(steps.values()) == {newest.updates}, "every parameter has made the same updates"
            assert int(optimisers["updates"]) == newest.updates
    with Training(folder, TWO, tmp_path / "log", TINY_STEP_SECONDS="0.005") as run:
        assert run.end() == 0, run.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert 2400 - 4 < summary["env_steps"] <= 2400
    ahead = summary["updates"] - (5 + 0.05 * (summary["env_steps"] - 400))
    assert -1 - summary["replay_debt_dropped_updates"] <= ahead <= 51, "within the limiter's band"
    lines = RunFolder(folder).metrics()
    versions = [line["weights_version"] for line in lines]
    assert versions == sorted(versions)
    assert len(set(versions)) > 3, "weights were published"
    losses = [line["model_loss"] for line in lines if "model_loss" in line]
    assert losses[-1] < losses[0]
