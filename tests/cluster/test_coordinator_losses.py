"""The coordinator when rows are lost, when an evaluation is in the way, and when episodes are too short."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import dm_env
import numpy as np
import pytest
from numpy.typing import NDArray

from cluster.coordinator import Coordinator
from cluster.main import main
from cluster.runtimes.inline import InlineRuntime
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import EVALUATOR, LEARNER
from common.config import EnvironmentConfig, ReplayConfig
from common.config_io import to_yaml
from common.errors import UserError
from common.presets import smoke
from common.run_folder import RunFolder
from tests.cluster.expectations import assert_complete
from tests.cluster.simulated import SimulatedRuntime, config, simulate
from tests.tiny import Tiny


def test_rows_that_a_store_lost_are_told_and_collected_no_second_time(tmp_path: Path) -> None:
    wanted, lost = config(replay_store="memory"), []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if not lost and runtime.disk.env_steps > 3000:
            lost.append(1500)
            runtime.disk.env_steps -= 1500
            runtime.disk.life = "second"

    run = simulate(wanted, tmp_path, watch=watch)
    assert_complete(run, wanted)
    assert run.coordinator.limiter.lost_env_steps == 1500
    assert run.summary["env_steps"] - 1500 == run.runtime.disk.env_steps
    assert "1,500 environment steps are lost" in run.text


def test_rows_that_a_dying_shard_stored_and_told_nobody_of_are_counted_when_it_is_back(tmp_path: Path) -> None:
    wanted, untold, recounts = config(), [], []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if not untold and runtime.disk.env_steps > 3000:
            untold.append(40)
            runtime.disk.env_steps += 40
            runtime.disk.life = "second"
            recount = coordinator.recount
            coordinator.recount = lambda: recounts.append(runtime.now) or recount()  # type: ignore[method-assign, func-returns-value]  # told when

    run = simulate(wanted, tmp_path, watch=watch)
    assert_complete(run, wanted)
    assert len(recounts) == 2, "soon, and at the end as always"
    assert run.summary["env_steps"] == run.runtime.disk.env_steps


class Emptied:
    """Lets the store lose everything while the learner works, once so much has been collected."""

    def __init__(self, env_steps: int) -> None:
        self.env_steps = env_steps
        self.lost = 0
        self.updates = 0

    def __call__(self, coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if not self.lost and coordinator.limiter.env_steps >= self.env_steps and LEARNER in coordinator.busy:
            self.lost, self.updates = runtime.disk.env_steps, runtime.done
            runtime.disk.env_steps, runtime.disk.life = 0, "second"


def test_a_learner_that_finds_nothing_to_draw_any_more_goes_on_with_what_is_collected_next(tmp_path: Path) -> None:
    wanted, emptied = config(), Emptied(3000)
    run = simulate(wanted, tmp_path, watch=emptied)
    assert emptied.lost
    assert run.summary["finished"]
    assert run.summary["env_steps"] == 6000
    assert run.runtime.disk.env_steps == 6000 - emptied.lost
    assert run.runtime.done == run.summary["updates"] > emptied.updates + 100


def test_updates_that_are_owed_to_a_store_that_is_empty_end_the_run_with_one_line_and_a_checkpoint(
    tmp_path: Path,
) -> None:
    wanted = config()
    wanted, emptied = dataclasses.replace(wanted, replay=dataclasses.replace(wanted.replay, prefill=0)), Emptied(5990)
    with pytest.raises(UserError, match=r"6,000 environment steps are lost .* a larger --env-steps") as refused:
        simulate(wanted, tmp_path, watch=emptied, updates_per_second=10)
    assert "\n" not in str(refused.value)
    newest = RunFolder(tmp_path).newest_checkpoint()
    assert newest is not None
    assert newest.updates % wanted.training.checkpoint_every


def test_a_run_that_is_stopped_does_not_wait_for_an_evaluation(tmp_path: Path) -> None:
    wanted = config()
    ended: list[float] = []

    def stop(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        asked = coordinator.evaluations.wanted
        periodic = EVALUATOR in coordinator.busy and asked and asked[0].env_steps >= 2000
        if periodic and not coordinator.stop_requested:
            coordinator.stop_requested = True
            ended.append(runtime.now)

    stopped = simulate(wanted, tmp_path, watch=stop)
    assert not stopped.summary["finished"]
    assert stopped.runtime.now - ended[0] < 2.0, "an evaluation takes three seconds"
    assert "evaluator died" not in stopped.text
    before = len(stopped.folder.evaluations())
    resumed = simulate(wanted, tmp_path, disk=stopped.runtime.disk)
    assert_complete(resumed, wanted)
    at = [record["env_steps"] for record in resumed.folder.evaluations()[before:]]
    assert min(at) < 2000 + 2000, "what was given up is made up for"


def test_an_inline_role_that_is_killed_has_its_queued_calls_end(tmp_path: Path) -> None:
    runtime = InlineRuntime(Setting(smoke(), 1, "auto", tmp_path, "cpu"))
    runtime.call(EVALUATOR, "evaluate")
    runtime.kill(EVALUATOR)
    call = runtime.wait(0.1)
    assert call is not None
    assert (call.role, call.method) == (EVALUATOR, "evaluate")
    assert call.died is not None
    assert runtime.wait(0.1) is None


class Brief(Tiny):
    """Ends its episodes after three steps."""

    def step(self, action: NDArray[np.floating]) -> dm_env.TimeStep:
        step = super().step(action)
        return dm_env.termination(step.reward, step.observation) if self._steps >= 3 else step


def brief(seed: int) -> Brief:
    """The task `tests.cluster.test_coordinator_losses:brief`."""
    return Brief(seed)


@pytest.mark.parametrize("env_steps", [200, 3000], ids=["with its steps", "with the band full"])
def test_episodes_that_are_all_too_short_end_the_run_with_one_line(
    env_steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = dataclasses.replace(
        smoke(),
        task="tests.cluster.test_coordinator_losses:brief",
        runtime="inline",
        device="cpu",
        replay_store="memory",
        env_steps=env_steps,
        eval_every=0,
        final_eval_episodes=1,
        environment=EnvironmentConfig(action_repeat=1, time_limit=24),
        replay=ReplayConfig(capacity=10_000, chunk_rows=10, prefill=150, pretrain=2),
    )
    (tmp_path / "brief.yaml").write_text(to_yaml(wanted))
    assert main(["train", "--config", str(tmp_path / "brief.yaml"), "--run-dir", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no episode so far has the 8 rows of a training window" in line
    assert "lower --training.batch-length" in line
