"""Whole runs of the coordinator over simulated roles that die and hang."""

from __future__ import annotations

import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.coordinator import Coordinator
from cluster.runtimes.runtime import EVALUATOR, LEARNER
from common.errors import UserError
from replay_service.stores.trouble import StoreGaveUpError
from tests.cluster.expectations import assert_complete
from tests.cluster.simulated import FOREVER, Faults, SimulatedRuntime, config, simulate


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    collector=st.floats(0.0, 0.1),
    learner=st.floats(0.0, 0.05),
    evaluator=st.floats(0.0, 0.3),
    anybody=st.floats(0.0, 0.02),
    homeless_seconds=st.sampled_from([0.0, 3.0]),
    env_steps_per_second=st.sampled_from([100.0, 400.0, 20_000.0]),
    updates_per_second=st.sampled_from([30.0, 3000.0]),
)
def test_a_run_whose_roles_die_at_random_ends_at_its_steps_with_its_updates(
    seed: int,
    collector: float,
    learner: float,
    evaluator: float,
    anybody: float,
    homeless_seconds: float,
    env_steps_per_second: float,
    updates_per_second: float,
) -> None:
    """They die over their calls, and `anybody` at any moment; the learner's next life may wait for a place."""
    wanted, randomness = config(), random.Random(seed)
    chances = {"collector": collector, "learner": learner, "evaluator": evaluator}
    faults = Faults(seed, chances, homeless_seconds={"learner": homeless_seconds})
    versions: list[int] = []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        versions.append(coordinator.weights_version)
        if randomness.random() < anybody:
            runtime.slay(randomness.choice([LEARNER, EVALUATOR, *coordinator.collectors]))

    with tempfile.TemporaryDirectory() as folder:
        run = simulate(
            wanted,
            Path(folder),
            env_steps_per_second=env_steps_per_second,
            updates_per_second=updates_per_second,
            faults=faults,
            watch=watch,
        )
        lines = run.folder.metrics()
        assert_complete(run, wanted)
    assert run.summary["updates"] == run.runtime.done
    assert "are lost" not in run.text
    assert run.summary["env_steps"] == run.runtime.disk.env_steps, "rows of collectors that died count too"
    assert versions == sorted(versions)
    assert [line["env_steps"] for line in lines] == sorted(line["env_steps"] for line in lines)
    restarts = sum(run.summary["role_restarts"].values())
    assert len(run.runtime.started) == wanted.actors + 3 + restarts
    incarnations = [incarnation for _, incarnation in run.runtime.started]
    assert len(set(incarnations)) == len(incarnations)


def test_a_collector_that_dies_is_started_again_and_its_budget_is_free(tmp_path: Path) -> None:
    wanted = config(actors=1)
    run = simulate(wanted, tmp_path, faults=Faults(dies={("collector", "collect"): {2}}))
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"collector": 1}
    first, second = (incarnation for role, incarnation in run.runtime.started if role.kind == "collector")
    assert second > first
    assert "collector 0 died and starts again in 1 s: killed" in run.text


def test_the_last_rows_of_a_run_are_stepped_anew_where_their_collector_dies_with_them(tmp_path: Path) -> None:
    wanted = config(env_steps=6016)  # no whole chunks
    run = simulate(wanted, tmp_path, faults=Faults(dies={("collector", "finish"): {0}}))
    assert_complete(run, wanted)
    methods = [method for role, method in run.runtime.called if role.kind == "collector"]
    assert "collect" in methods[methods.index("finish") :]


def test_a_collector_that_dies_with_its_weights_on_the_way_counts_as_one_death(tmp_path: Path) -> None:
    run = simulate(config(), tmp_path, faults=Faults(dies={("collector", "set_weights"): {0}}))
    assert run.summary["finished"]
    assert run.summary["role_restarts"] == {"collector": 1}
    assert run.text.count("died and starts again in 1 s") == 1


def test_a_collector_that_is_down_when_the_run_is_stopped_is_not_waited_for(tmp_path: Path) -> None:
    def stop(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if any(coordinator.supervisor.is_down(role) for role in coordinator.collectors):
            coordinator.stop_requested = True

    run = simulate(config(), tmp_path, faults=Faults(dies={("collector", "collect"): {5}}), watch=stop)
    assert not run.summary["finished"]
    assert [method for role, method in run.runtime.called if role.kind == "collector"].count("finish") == 1
    assert run.folder.newest_checkpoint() is not None


def test_a_learner_that_dies_comes_back_from_its_newest_checkpoint(tmp_path: Path) -> None:
    wanted, done = config(), []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        done.append(runtime.done)

    run = simulate(wanted, tmp_path, faults=Faults(dies={("learner", "update"): {20}}), watch=watch)
    assert_complete(run, wanted)
    fall = next(index for index in range(1, len(done)) if done[index] < done[index - 1])
    newest = done[fall - 1] // 100 * 100
    assert newest > 0
    assert f"the learner is back at {newest} updates" in run.text
    assert run.runtime.done == run.summary["updates"]


def test_collectors_go_on_while_the_learner_waits_for_another_node(tmp_path: Path) -> None:
    wanted, stored = config(), []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if coordinator.restoring:
            stored.append(runtime.disk.env_steps)
            assert not any(event.role.kind == "learner" for event in runtime.under_way)

    faults = Faults(dies={("learner", "update"): {10}}, homeless_seconds={"learner": 300.0})
    run = simulate(wanted, tmp_path, env_steps_per_second=100, faults=faults, watch=watch)
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"learner": 1}
    assert stored[-1] - stored[0] >= 500
    assert "learner waits for a node with room for it" in run.text
    assert run.runtime.done == run.summary["updates"]


def test_a_run_whose_learner_finds_no_node_stops_and_says_so(tmp_path: Path) -> None:
    faults = Faults(dies={("learner", "update"): {10}}, homeless_seconds={"learner": 10_000.0})
    with pytest.raises(UserError, match=r"no progress for 10 minutes; waiting for learner \(no node has room for it\)"):
        simulate(config(), tmp_path, faults=faults)


@pytest.mark.parametrize("call", [10, 20, 30])
def test_steps_under_way_when_the_learner_dies_leave_the_error_within_its_band(call: int, tmp_path: Path) -> None:
    wanted = config(env_steps=10_000, actors=8)
    wanted = replace(wanted, training=replace(wanted.training, checkpoint_every=10_000))

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        low, high = coordinator.limiter.band
        assert low - 1e-6 <= coordinator.limiter.error < high + 1

    faults = Faults(dies={("learner", "update"): {call}})
    run = simulate(wanted, tmp_path, env_steps_per_second=100, updates_per_second=80, faults=faults, watch=watch)
    assert run.summary["role_restarts"] == {"learner": 1}


@pytest.mark.parametrize("method", ["weights", "state", "reconstruction_strip"])
def test_a_learner_that_dies_over_another_call_comes_back_too(tmp_path: Path, method: str) -> None:
    wanted = config()
    run = simulate(wanted, tmp_path, faults=Faults(dies={("learner", method): {1}}))
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"learner": 1}
    assert run.runtime.done == run.summary["updates"]
    assert run.runtime.published == sorted(run.runtime.published)


@pytest.mark.parametrize(("method", "from_last"), [("weights", 1), ("state", 2), ("state", 1)])
def test_a_learner_that_is_gone_at_the_very_end_does_its_last_updates_anew(
    tmp_path: Path, method: str, from_last: int
) -> None:
    wanted = config()
    well = simulate(wanted, tmp_path / "well")
    call = well.runtime.counts["learner", method] - from_last
    run = simulate(wanted, tmp_path / "run", faults=Faults(dies={("learner", method): {call}}))
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"learner": 1}
    assert run.summary["updates"] == run.runtime.done == well.summary["updates"]
    newest = run.folder.newest_checkpoint()
    assert newest is not None
    assert newest.updates == run.folder.evaluations()[-1]["updates"] == run.runtime.done


def test_a_learner_that_dies_while_the_run_begins_is_restored_before_a_collector_is_called(tmp_path: Path) -> None:
    wanted = config()
    faults = Faults(dies={("learner", "weights"): {0}}, homeless_seconds={"learner": 5.0})
    run = simulate(wanted, tmp_path, faults=faults)
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"learner": 1}


def test_a_learner_that_dies_while_rows_are_recounted_takes_no_answer_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, killed = config(), []
    recount = Coordinator.recount

    def and_the_learner_dies(coordinator: Coordinator) -> None:
        if LEARNER in coordinator.busy and not killed:
            killed.append(coordinator.runtime.kill(LEARNER))
        recount(coordinator)

    monkeypatch.setattr(Coordinator, "recount", and_the_learner_dies)
    faults = Faults(dies={("collector", "collect"): {12}}, homeless_seconds={"learner": 5.0})
    run = simulate(wanted, tmp_path, updates_per_second=10, faults=faults)
    assert killed
    assert_complete(run, wanted)
    assert "are lost" not in run.text


def test_a_learner_that_dies_while_it_is_restored_is_restored_again(tmp_path: Path) -> None:
    wanted = config()
    faults = Faults(dies={("learner", "update"): {20}, ("learner", "restore"): {0, 1}})
    run = simulate(wanted, tmp_path, faults=faults)
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"learner": 3}
    assert run.runtime.done == run.summary["updates"]


def test_a_role_that_keeps_dying_ends_the_run_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^collector 0 died 8 times in a row without progress: killed$"):
        simulate(config(actors=1), tmp_path, faults=Faults(chance={"collector": 1.0}))


def test_evaluations_that_succeed_clear_the_evaluators_deaths(tmp_path: Path) -> None:
    deaths = {number for number in range(40) if number % 3 != 2}  # two of three, 12 or more in the run
    run = simulate(config(eval_every=500), tmp_path, faults=Faults(dies={("evaluator", "evaluate"): deaths}))
    assert run.summary["finished"]
    assert run.summary["role_restarts"]["evaluator"] > 8


def test_a_collector_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    wanted = config(actors=1)
    run = simulate(wanted, tmp_path, faults=Faults(hangs={("collector", "collect"): {6}}))
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"collector": 1}
    assert "has not come back from collect for 61 s: killing it" in run.text


def test_a_learner_that_hangs_stops_the_run_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no progress for 10 minutes; waiting for learner \(update\)"):
        simulate(config(), tmp_path, faults=Faults(hangs={("learner", "update"): {3}}))


def test_a_learner_that_hangs_when_the_store_is_given_up_is_named(tmp_path: Path) -> None:
    def give_up(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        hangs = any(event.end == FOREVER for event in runtime.under_way)
        if hangs and not coordinator.supervisor.excused:
            coordinator.supervisor.excused = True
            runtime.on_end = lambda: None
            raise StoreGaveUpError("Redis is away")

    line = r"^Redis is away, from the checkpoint before: no progress for 10 minutes; waiting for .*learner \(update\)$"
    with pytest.raises(UserError, match=line):
        simulate(config(), tmp_path, faults=Faults(hangs={("learner", "update"): {3}}), watch=give_up)
