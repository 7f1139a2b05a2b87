"""Runs that are stopped, killed or bereft of their store, and go on."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.coordinator import Coordinator
from tests.cluster.expectations import Band, assert_complete, stop_after, stride
from tests.cluster.simulated import SimulatedRuntime, config, simulate
from tests.cluster.simulated_roles import Disk


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


def test_an_evaluation_that_a_killed_run_did_not_end_is_made_up_for(tmp_path: Path) -> None:
    wanted, disk = config(), Disk()

    def killed(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        asked = coordinator.evaluations.wanted
        periodic = [evaluation for evaluation in asked if evaluation.weights is not None and evaluation.weights.updates]
        newest = coordinator.folder.newest_checkpoint()
        if periodic and newest is not None and newest.state["env_steps"] > periodic[0].env_steps:
            raise KilledError

    with contextlib.suppress(KilledError):
        simulate(wanted, tmp_path, disk=disk, watch=killed)
    again = simulate(wanted, tmp_path, disk=disk)
    assert_complete(again, wanted)
    at = [record["env_steps"] for record in again.folder.evaluations() if record["weights_version"] > 1]
    assert [steps // wanted.eval_every for steps in at] == [1, 2, 3]


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
