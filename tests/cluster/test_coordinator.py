"""Whole runs of the coordinator over simulated roles: rate, order, failures, resuming."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.coordinator import Coordinator
from common.config import Config
from common.errors import UserError
from replay_service.limiter import first_window_env_steps
from tests.cluster.simulated import Disk, Faults, Run, SimulatedRuntime, config, simulate


class Band:
    """Holds U − g within the tolerance at the end of every call, counted from what the roles themselves did."""

    def __init__(self, config: Config) -> None:
        self.config = config
        held = config.replay.chunk_rows * config.environment.action_repeat * config.environments
        self.tolerance = config.train_ratio * max(1000, 2 * held)
        self.checks = 0

    def __call__(self, coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        called_for = self.config.train_ratio * max(0, runtime.disk.env_steps - self.config.replay.prefill)
        error = runtime.done - called_for
        assert -self.tolerance - 1e-6 <= error < self.config.replay.pretrain + self.tolerance + 1
        self.checks += 1


def stride(config: Config) -> int:
    return config.envs_per_actor * config.environment.action_repeat


def assert_complete(run: Run, config: Config) -> None:
    """The run ended at its environment steps, with the updates that they call for, and at no more."""
    assert run.summary["finished"]
    assert config.env_steps - stride(config) < run.summary["env_steps"] <= config.env_steps
    called_for = config.replay.pretrain + config.train_ratio * (run.summary["env_steps"] - config.replay.prefill)
    tolerance = config.train_ratio * max(
        1000, 2 * config.replay.chunk_rows * config.environment.action_repeat * config.environments
    )
    # What collectors still held when the last update was granted comes on top.
    held = config.train_ratio * config.replay.chunk_rows * config.environment.action_repeat * config.environments
    forgiven = run.summary["replay_debt_dropped_updates"]
    assert called_for - forgiven - held - 1 <= run.summary["updates"] < called_for + tolerance + 1


@pytest.mark.parametrize(
    ("env_steps_per_second", "updates_per_second"),
    [(100_000.0, 1.0), (400.0, 30.0), (5.0, 5000.0)],
    ids=["actors far faster", "balanced", "actors far slower"],
)
def test_ratio_stays_in_its_band_whoever_is_faster(
    tmp_path: Path, env_steps_per_second: float, updates_per_second: float
) -> None:
    wanted, band = config(), Band(config())
    run = simulate(
        wanted,
        tmp_path,
        env_steps_per_second=env_steps_per_second,
        updates_per_second=updates_per_second,
        watch=band,
    )
    assert band.checks > 50
    assert_complete(run, wanted)


@settings(deadline=None, max_examples=25)
@given(
    env_steps_per_second=st.floats(20.0, 100_000.0),
    updates_per_second=st.floats(2.0, 5000.0),
    actors=st.integers(1, 6),
    envs_per_actor=st.integers(1, 8),
    chunk_rows=st.integers(1, 30),
    train_ratio=st.floats(0.01, 0.5),
    seed=st.integers(0, 1000),
)
def test_any_run_keeps_its_band_and_ends(
    env_steps_per_second: float,
    updates_per_second: float,
    actors: int,
    envs_per_actor: int,
    chunk_rows: int,
    train_ratio: float,
    seed: int,
) -> None:
    wanted = config(env_steps=3000, actors=actors, envs_per_actor=envs_per_actor, train_ratio=train_ratio)
    wanted = dataclasses.replace(wanted, replay=dataclasses.replace(wanted.replay, chunk_rows=chunk_rows))
    prefill = max(500, first_window_env_steps(wanted))
    wanted = dataclasses.replace(wanted, replay=dataclasses.replace(wanted.replay, prefill=prefill))
    with tempfile.TemporaryDirectory() as folder:
        run = simulate(
            wanted,
            Path(folder),
            env_steps_per_second=env_steps_per_second,
            updates_per_second=updates_per_second,
            faults=Faults(seed),
            watch=Band(wanted),
        )
    assert_complete(run, wanted)


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    collector=st.floats(0.0, 0.2),
    learner=st.floats(0.0, 0.05),
    evaluator=st.floats(0.0, 0.3),
    env_steps_per_second=st.sampled_from([100.0, 400.0, 20_000.0]),
)
def test_a_run_whose_roles_die_at_random_ends_at_its_steps(
    seed: int, collector: float, learner: float, evaluator: float, env_steps_per_second: float
) -> None:
    wanted = config()
    faults = Faults(seed, {"collector": collector, "learner": learner, "evaluator": evaluator})
    versions: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        run = simulate(
            wanted,
            Path(folder),
            env_steps_per_second=env_steps_per_second,
            faults=faults,
            watch=lambda coordinator, _: versions.append(coordinator.weights_version),
        )
        lines = run.folder.metrics()
    held = wanted.replay.chunk_rows * wanted.environment.action_repeat * wanted.environments
    assert run.summary["finished"]
    assert wanted.env_steps - stride(wanted) - held < run.summary["env_steps"] <= wanted.env_steps
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


@pytest.mark.parametrize("method", ["weights", "state", "reconstruction_strip"])
def test_a_learner_that_dies_over_another_call_comes_back_too(tmp_path: Path, method: str) -> None:
    wanted = config()
    run = simulate(wanted, tmp_path, faults=Faults(dies={("learner", method): {1}}))
    assert_complete(run, wanted)
    assert run.summary["role_restarts"] == {"learner": 1}
    assert run.runtime.done == run.summary["updates"]
    assert run.runtime.published == sorted(run.runtime.published)


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


def test_weights_are_published_after_the_pretraining_and_at_their_interval(tmp_path: Path) -> None:
    wanted = config(replay=dataclasses.replace(config().replay, pretrain=30))
    updates: dict[int, int] = {}

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        assert coordinator.weights is not None or runtime.done == 0
        if coordinator.weights is not None:
            updates[coordinator.weights.version] = coordinator.weights.updates

    simulate(wanted, tmp_path, watch=watch)
    assert [updates[version] for version in sorted(updates)][:4] == [0, 20, 30, 40]


def test_collectors_act_at_random_until_the_learner_has_learnt_something(tmp_path: Path) -> None:
    run = simulate(config(), tmp_path)
    calls = [(role.kind, method) for role, method in run.runtime.called]
    assert calls.index(("learner", "update")) < calls.index(("collector", "set_weights"))
    assert 1 not in run.runtime.published


def test_checkpoints_come_at_their_interval_and_old_ones_go(tmp_path: Path) -> None:
    run = simulate(config(keep_at=(100,)), tmp_path)
    assert run.folder.checkpoint_updates() == [100, 400, 500, run.summary["updates"]]


def test_evaluations_come_at_their_interval_and_name_their_weights(tmp_path: Path) -> None:
    run = simulate(config(eval_rotation=(0.0, 5.0)), tmp_path)
    records = run.folder.evaluations()
    plain = [record for record in records if record["rotation_degrees"] == 0]
    rotated = [record for record in records if record["rotation_degrees"] == 5]
    assert len(plain) == len(rotated) == 5
    assert [record["weights_version"] for record in plain][:2] == [0, 1]
    assert [len(record["returns"]) for record in plain] == [2, 2, 1, 1, 2]
    for at, record in zip((2000, 4000), plain[2:4], strict=True):
        assert at <= record["env_steps"] < at + 600
    assert plain[-1]["env_steps"] == run.summary["env_steps"]
    assert plain[-1]["updates"] == run.summary["updates"]
    assert run.summary["random_return"] == 0.0
    assert run.summary["first_return"] == 1.0
    assert run.summary["last_return"] == plain[-1]["mean"]


def stop_after(env_steps: int) -> Any:
    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        coordinator.stop_requested = coordinator.stop_requested or coordinator.limiter.env_steps >= env_steps

    return watch


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted, disk = config(), Disk()
    first = simulate(wanted, tmp_path, disk=disk, watch=stop_after(3000))
    assert not first.summary["finished"]
    band, versions = Band(wanted), []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        versions.append(coordinator.weights_version)
        if ("learner", "restore") in {(role.kind, method) for role, method in runtime.called}:
            band(coordinator, runtime)

    second = simulate(wanted, tmp_path, disk=disk, watch=watch)
    assert_complete(second, wanted)
    assert band.checks > 20
    assert f"resumed at {first.summary['env_steps']:,} environment steps" in second.text
    assert second.summary["replay_debt_dropped_updates"] == 0
    restored = [version for version in versions if version]
    assert restored == sorted(restored)
    assert restored[0] >= first.summary["weights_version"]
    assert second.runtime.published[0] > max(first.runtime.published)
    lines = second.folder.metrics()
    assert [line["env_steps"] for line in lines] == sorted(line["env_steps"] for line in lines)
    assert [line["wall_seconds"] for line in lines] == sorted(line["wall_seconds"] for line in lines)
    incarnations = [incarnation for run in (first, second) for _, incarnation in run.runtime.started]
    assert incarnations == sorted(set(incarnations))
    means = [record["weights_version"] for record in second.folder.evaluations()]
    assert means.count(0) == 1, "random actions are evaluated once in a run's life"


class KilledError(Exception):
    """Stands for kill -9 of everything."""


@settings(deadline=None, max_examples=15)
@given(
    kills=st.lists(st.integers(5, 150), min_size=1, max_size=3),
    env_steps_per_second=st.sampled_from([100.0, 5000.0]),
)
def test_a_killed_run_goes_on_without_a_burst(kills: list[int], env_steps_per_second: float) -> None:
    wanted, disk = config(), Disk()
    tolerance = wanted.train_ratio * 1000
    with tempfile.TemporaryDirectory() as folder:
        for kill in kills:
            ends = 0

            def watch(coordinator: Coordinator, runtime: SimulatedRuntime, kill: int = kill) -> None:
                nonlocal ends
                ends += 1
                if ends == kill:
                    raise KilledError

            try:
                simulate(wanted, Path(folder), disk=disk, env_steps_per_second=env_steps_per_second, watch=watch)
            except KilledError:
                continue
            break

        burst: list[int] = []

        def calm(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
            burst.append(coordinator.limiter.updates_allowed())
            assert -tolerance - 1e-6 <= coordinator.limiter.error < wanted.replay.pretrain + tolerance + 1

        again = dataclasses.replace(wanted, env_steps=wanted.env_steps + 2000)
        run = simulate(again, Path(folder), disk=disk, env_steps_per_second=env_steps_per_second, watch=calm)
    assert run.summary["finished"]
    assert again.env_steps - stride(again) < run.summary["env_steps"] <= again.env_steps
    assert run.summary["env_steps"] == disk.env_steps, "every row that the store held is counted again"
    assert max(burst) <= wanted.replay.pretrain + 2 * tolerance + 1


def test_a_store_that_lost_its_rows_is_filled_again_before_the_next_update(tmp_path: Path) -> None:
    wanted = config()
    first = simulate(wanted, tmp_path, disk=Disk(), watch=stop_after(3000))
    empty, first_update = Disk(), []

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if runtime.done > first.summary["updates"] and not first_update:
            first_update.append(empty.env_steps)

    second = simulate(wanted, tmp_path, disk=empty, watch=watch)
    assert second.summary["finished"]
    assert first_update[0] >= wanted.replay.prefill
    assert second.summary["env_steps"] > first.summary["env_steps"]
