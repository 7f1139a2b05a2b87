"""Collectors that join and leave while whole simulated runs go on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.coordinator import Coordinator
from cluster.runtimes.runtime import Role
from common.config import Config
from tests.cluster.expectations import Band, assert_complete, stop_after
from tests.cluster.simulated import Faults, Run, SimulatedRuntime, config, simulate
from tests.cluster.simulated_roles import Disk

SPEED = 100.0
NEED = 4
"""Collectors of that speed that just keep up with the learner: 40 updates a second, each for 10 environment steps."""


def elastic(**changes: Any) -> Config:
    """A run that takes minutes and may have 1 to 12 collectors."""
    base = config(env_steps=400 * 400, actors_min=1, actors_max=12)
    training = replace(base.training, checkpoint_every=4000, log_every=100, image_every=4000)
    base = replace(base, training=training, eval_every=0, replay=replace(base.replay, capacity=10**6))
    return replace(base, **changes)


def simulated(wanted: Config, path: Path, **options: Any) -> Run:
    return simulate(wanted, path, env_steps_per_second=SPEED, updates_per_second=SPEED * NEED / 10, **options)


def sizes(run: Run) -> list[int]:
    """How many collectors the lines of metrics.jsonl tell of."""
    return [int(line["collectors"]) for line in run.folder.metrics()]


def test_collectors_join_while_the_learner_waits_and_no_more_than_it_needs(tmp_path: Path) -> None:
    wanted, band = elastic(actors=1), Band(elastic())
    run = simulated(wanted, tmp_path, watch=band)
    assert_complete(run, wanted)
    assert band.checks > 100
    assert sizes(run)[0] == 1
    assert sizes(run)[-1] == NEED
    assert "2 collectors from here on, and were 1: the learner waited for them" in run.text
    assert {role.number for role in run.coordinator.collectors} == set(range(NEED))


def test_collectors_without_work_leave_and_all_that_they_held_is_stored(tmp_path: Path) -> None:
    wanted, band = elastic(actors=12, env_steps=600 * 400), Band(elastic())

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        band(coordinator, runtime)
        assert set(coordinator.budgets.held) <= set(coordinator.collectors)

    run = simulated(wanted, tmp_path, watch=watch)
    assert_complete(run, wanted)
    assert run.summary["env_steps"] == run.runtime.disk.env_steps
    assert sizes(run)[0] == 12
    assert NEED <= sizes(run)[-1] < NEED + 4
    gone = [role for role, _ in run.runtime.started if role not in run.coordinator.collectors]
    left = [role for role in gone if role.kind == "collector"]
    assert left
    assert min(role.number for role in left) > max(role.number for role in run.coordinator.collectors)
    for role in left:
        assert [method for called, method in run.runtime.called if called == role][-1] == "finish"
    assert not run.summary["role_restarts"]
    memories = {series for series in run.coordinator.telemetry.public.gauges if series[0] == "resident_memory_bytes"}
    assert not memories & {("resident_memory_bytes", "collector", str(role.number)) for role in left}


def test_a_fixed_number_stays_whoever_waits(tmp_path: Path) -> None:
    wanted = elastic(actors=1, actors_min=0, actors_max=0, env_steps=100 * 400)
    run = simulated(wanted, tmp_path)
    assert_complete(run, wanted)
    assert set(sizes(run)) == {1}


def gauges_of(seen: list[tuple[float, float]]) -> Callable[[Coordinator, SimulatedRuntime], None]:
    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        gauges = coordinator.telemetry.public.gauges
        if ("roles_expected", "collector") in gauges:
            seen.append((gauges["roles_expected", "collector"], gauges["roles_alive", "collector"]))

    return watch


def test_without_room_it_grows_once_and_nobody_is_missed(tmp_path: Path) -> None:
    wanted, seen, lags = elastic(actors=2), [], []
    tell = gauges_of(seen)

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        tell(coordinator, runtime)
        lags.append(coordinator.telemetry.public.gauges.get(("weights_lag_seconds",), 0.0))

    run = simulated(wanted, tmp_path, room=2, watch=watch)
    assert_complete(run, wanted)
    assert set(sizes(run)) == {2, 4}, "those that wait are waited for before more are asked"
    assert "collector 3 waits for a node with room for it" in run.text
    assert set(seen[5:]) == {(2.0, 2.0)}
    assert max(lags) < 10.0, "who is not there acts with no old weights"


def test_a_node_that_joins_is_used(tmp_path: Path) -> None:
    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        runtime.room = 2 if coordinator.limiter.env_steps < 60_000 else 100

    wanted = elastic(actors=2)
    run = simulated(wanted, tmp_path, room=2, watch=watch)
    assert_complete(run, wanted)
    assert len(run.runtime.placed) == NEED


def test_a_node_that_goes_away_means_fewer_collectors_until_it_is_back(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    tell = gauges_of(seen)
    alive: dict[str, set[float]] = {"before": set(), "away": set(), "after": set()}

    def watch(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        tell(coordinator, runtime)
        steps = coordinator.limiter.env_steps
        when = "before" if steps < 30_000 else "away" if steps < 60_000 else "after"
        if when == "away" and runtime.room is None:
            runtime.room = 1
            for role in list(runtime.placed)[1:]:
                runtime.kill(role)
        if when == "after":
            runtime.room = None
        if seen:
            alive[when].add(seen[-1][1])

    wanted = elastic(actors=4, env_steps=90_000)
    run = simulated(wanted, tmp_path, watch=watch)
    assert run.summary["finished"]
    assert run.summary["env_steps"] == run.runtime.disk.env_steps
    assert run.summary["role_restarts"]["collector"] >= 3
    assert 4.0 in alive["before"]
    assert 1.0 in alive["away"]
    assert 4.0 in alive["after"]


def test_below_the_minimum_collectors_without_a_place_are_missed(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    wanted = elastic(actors=4, actors_min=3, env_steps=50_000)
    run = simulated(wanted, tmp_path, room=2, watch=gauges_of(seen))
    assert run.summary["finished"]
    assert set(seen[5:]) == {(3.0, 2.0)}


def test_one_that_dies_while_it_leaves_is_not_started_again_and_its_rows_count(tmp_path: Path) -> None:
    wanted = elastic(actors=12, env_steps=400 * 400)
    run = simulated(wanted, tmp_path, faults=Faults(dies={("collector", "finish"): {0, 2}}))
    assert run.summary["finished"]
    assert run.summary["env_steps"] == run.runtime.disk.env_steps
    assert not run.summary["role_restarts"]
    assert sizes(run)[-1] < 12


def test_a_resumed_run_begins_with_as_many_as_it_had(tmp_path: Path) -> None:
    wanted, disk = elastic(actors=1), Disk()
    first = simulated(wanted, tmp_path, disk=disk, watch=stop_after(120_000))
    assert not first.summary["finished"]
    second = simulated(wanted, tmp_path, disk=disk)
    assert second.summary["finished"]
    begun = [role for role, _ in second.runtime.started if role.kind == "collector"]
    assert begun == [Role("collector", number) for number in range(NEED)]
    fewer = replace(wanted, actors_max=2, env_steps=wanted.env_steps + 10_000)
    third = simulated(fewer, tmp_path, disk=disk)
    assert len([role for role, _ in third.runtime.started if role.kind == "collector"]) == 2


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 10_000),
    actors=st.integers(1, 12),
    deaths=st.floats(0.0, 0.05),
    need=st.floats(0.5, 15.0),
)
def test_whoever_joins_leaves_or_dies_a_run_ends_at_its_steps(
    seed: int, actors: int, deaths: float, need: float
) -> None:
    wanted = elastic(actors=actors, env_steps=40_000)
    with tempfile.TemporaryDirectory() as folder:
        run = simulate(
            wanted,
            Path(folder),
            env_steps_per_second=SPEED,
            updates_per_second=SPEED * need / 10,
            faults=Faults(seed, {"collector": deaths, "learner": deaths / 5}),
        )
        assert 1 <= sizes(run)[-1] <= 12
    assert run.summary["finished"]
    assert run.summary["env_steps"] == run.runtime.disk.env_steps
    lives = [(role, incarnation) for role, incarnation in run.runtime.started if role.kind == "collector"]
    assert len({incarnation for _, incarnation in lives}) == len(lives)


@pytest.mark.parametrize(("actors", "first"), [(4, 4), (1, 2), (20, 12)])
def test_it_begins_with_actors_within_the_bounds(actors: int, first: int) -> None:
    assert elastic(actors=actors, actors_min=2).first_actors == first
