"""The coordinator when nothing is collected: only the learner works, and what shards lack is brought to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.coordinator import Coordinator
from cluster.offline import OfflineData
from tests.cluster.simulated import Disk, Faults, SimulatedRuntime, config, simulate
from tests.cluster.stored_runs import stored_run
from tests.replay_service.episodes import make_episode

UPDATES = 20 + 550
HELD = 2 * 16 * 12


@pytest.fixture
def source(tmp_path: Path) -> str:
    stored_run(tmp_path / "source", [chunk for n in range(12) for chunk in make_episode(n, [9, 8], action_size=1)])
    return str(tmp_path / "source")


def test_the_learner_alone_works_and_evaluations_come_by_its_updates(source: str, tmp_path: Path) -> None:
    wanted = config(offline=source)
    run = simulate(wanted, tmp_path / "run", offline=OfflineData(wanted, 1))
    assert run.summary["finished"]
    assert (run.summary["updates"], run.summary["env_steps"], run.runtime.disk.env_steps) == (UPDATES, 6000, HELD)
    assert not {role.kind for role, _ in run.runtime.called} - {"learner", "replay", "evaluator"}
    assert run.text.count("384 environment steps of") == 1
    evaluated = [record["env_steps"] for record in run.folder.evaluations()]
    assert evaluated[:2] == [0, 0]
    assert 2000 <= evaluated[2] < 3000
    assert 4000 <= evaluated[3] < 5000
    assert evaluated[4:] == [6000]


def test_a_shard_that_came_back_empty_is_filled_again(source: str, tmp_path: Path) -> None:
    wanted, lost = config(offline=source), []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if not lost and coordinator.limiter.updates > 100:
            lost.append(runtime.disk.env_steps)
            runtime.disk.env_steps, runtime.disk.life = 0, "second"

    run = simulate(wanted, tmp_path / "run", watch=watch, offline=OfflineData(wanted, 1))
    assert lost == [HELD]
    assert (run.summary["updates"], run.runtime.disk.env_steps) == (UPDATES, HELD)
    assert run.text.count("384 environment steps of") == 2


def test_a_learner_that_died_does_again_what_its_checkpoint_has_not(source: str, tmp_path: Path) -> None:
    wanted = config(offline=source)
    faults = Faults(dies={("learner", "update"): {9}})
    run = simulate(wanted, tmp_path / "run", faults=faults, offline=OfflineData(wanted, 1))
    assert run.runtime.done == run.summary["updates"] == UPDATES
    assert run.summary["replay_debt_dropped_updates"] == 0
    steps = [line["env_steps"] for line in run.folder.metrics()]
    assert len(set(steps)) < len(steps), "some stand there twice, as their updates were done twice"
    assert steps[-1] == 6000


def test_a_run_stopped_while_it_is_filled_goes_on_where_it_was(source: str, tmp_path: Path) -> None:
    wanted, disk = config(offline=source), Disk()
    data = OfflineData(wanted, 1)

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        coordinator.stop_requested = True

    stopped = simulate(wanted, tmp_path / "run", disk=disk, watch=watch, offline=data)
    assert not stopped.summary["finished"]
    assert disk.env_steps == 0
    resumed = simulate(wanted, tmp_path / "run", disk=disk, offline=OfflineData(wanted, 1))
    assert (resumed.summary["updates"], disk.env_steps) == (UPDATES, HELD)
