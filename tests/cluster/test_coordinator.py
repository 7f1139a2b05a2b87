"""Whole runs of the coordinator over simulated roles: the rate, and what is due when."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.coordinator import Coordinator
from replay_service.limiter import first_window_env_steps
from tests.cluster.expectations import Band, assert_complete
from tests.cluster.simulated import Faults, SimulatedRuntime, config, simulate


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


def test_shards_that_always_report_keep_no_run_from_its_end(tmp_path: Path) -> None:
    wanted = config()
    wanted = dataclasses.replace(wanted, replay=dataclasses.replace(wanted.replay, shards=3))
    run = simulate(wanted, tmp_path, slice_seconds=None)  # inline a report is asked for at every turn
    assert_complete(run, wanted)


def test_every_collector_has_its_turn_where_a_slow_learner_leaves_steps_for_one(tmp_path: Path) -> None:
    run = simulate(config(actors=4, env_steps=3000), tmp_path, updates_per_second=1.0)
    turns = Counter(role for role, method in run.runtime.called if method == "collect")
    assert len(turns) == 4
    assert max(turns.values()) <= 3 * min(turns.values())


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


def test_evaluations_that_take_longer_than_their_interval_come_late_and_people_are_told_once(tmp_path: Path) -> None:
    wanted = config(eval_every=500, eval_rotation=(0.0, 5.0))
    run = simulate(wanted, tmp_path, evaluation_seconds=8.0, env_steps_per_second=20.0)
    records = run.folder.evaluations()
    at = [record["env_steps"] for record in records if record["rotation_degrees"] == 0]
    assert [steps // 500 for steps in at] == [0, 0, *range(1, 12), 12], "none is left out"
    updates = [record["updates"] for record in records if record["rotation_degrees"] == 0]
    assert updates[1:] == sorted(set(updates)), "each with the weights of its time"
    told = [line for line in run.text.splitlines() if "evaluations take longer than --eval-every 500" in line]
    assert len(told) == 1
    assert "2 are waiting" in told[0]
    assert "evaluations take longer" not in simulate(config(), tmp_path / "in time").text
