"""What a run makes public never goes back: not when roles die, not when the run is killed and resumed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.coordinator import Coordinator
from cluster.telemetry.numbers import Numbers
from tests.cluster.expectations import stop_after
from tests.cluster.simulated import Event, Faults, SimulatedRuntime, config, simulate
from tests.cluster.simulated_roles import Disk


class KilledError(Exception):
    """Stands for kill -9 of everything."""


class Watcher:
    """Looks at what is public after every call, as a scrape might, and kills the run at the n-th look."""

    def __init__(self) -> None:
        self.seen = Numbers()
        self.looks = 0
        self.kill_at = 0

    def __call__(self, coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        public = coordinator.telemetry.public
        for series, value in self.seen.counters.items():
            assert public.counters.get(series, 0.0) >= value, series
        for series, held in self.seen.histograms.items():
            assert public.histograms[series].total >= held.total
            assert all(map(int.__ge__, public.histograms[series].counts, held.counts))
        self.seen = public
        self.looks += 1
        if self.looks == self.kill_at:
            raise KilledError


@settings(deadline=None, max_examples=10)
@given(kills=st.lists(st.integers(20, 150), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_counters_never_go_back(kills: list[int], seed: int) -> None:
    wanted, disk, watcher = config(), Disk(), Watcher()
    faults = Faults(seed=seed, chance={"collector": 0.03, "learner": 0.03})
    with tempfile.TemporaryDirectory() as folder:
        for kill in [*kills, 10**9]:
            watcher.looks, watcher.kill_at = 0, kill
            try:
                run = simulate(wanted, Path(folder), disk=disk, faults=faults, watch=watcher)
            except KilledError:
                continue
            break
        totals = run.folder.totals()
    numbers = run.coordinator.telemetry.public
    assert numbers.counters["env_steps_total",] == run.summary["env_steps"] == disk.env_steps
    assert numbers.counters["updates_total",] >= run.summary["updates"]
    restarts = sum(run.summary["role_restarts"].values())
    assert sum(value for (name, *_), value in numbers.counters.items() if name == "role_restarts_total") >= restarts
    kept = Numbers()
    kept.restore(totals)
    assert kept.counters == numbers.counters


def test_a_run_that_has_lost_its_totals_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    disk = Disk()
    first = simulate(config(), tmp_path, disk=disk, watch=stop_after(3000))
    (tmp_path / ".totals").unlink()  # as a power loss may
    run = simulate(config(), tmp_path, disk=disk)
    lines = run.folder.metrics()
    assert {line["model_loss"] for line in lines if "model_loss" in line} == {1.0}, "means over what was done since"
    assert run.coordinator.telemetry.public.counters["updates_total",] == run.summary["updates"]
    assert run.summary["updates"] > first.summary["updates"]


def test_gauges_tell_where_a_run_ended(tmp_path: Path) -> None:
    run = simulate(config(), tmp_path)
    gauges = run.coordinator.telemetry.public.gauges
    assert gauges["env_steps",] == run.summary["env_steps"]
    assert gauges["updates",] == run.summary["updates"]
    assert gauges["weights_version",] == run.summary["weights_version"]
    assert gauges["replay_ratio_target",] == 0.1
    assert (
        gauges["replay_updates_ahead_low",] <= gauges["replay_updates_ahead",] <= gauges["replay_updates_ahead_high",]
    )
    assert gauges["roles_alive", "collector"] == gauges["roles_expected", "collector"] == 2
    assert gauges["training_metric", "model_loss"] == 1.0
    assert gauges["evaluation_return", "0"] == run.summary["last_return"]
    assert gauges["episode_return",] == run.coordinator.recorder.last_return


def test_metrics_lines_add_up_to_the_counters(tmp_path: Path) -> None:
    run = simulate(config(), tmp_path)
    lines, counters = run.folder.metrics(), run.coordinator.telemetry.public.counters
    assert sum(line["episodes"] for line in lines) == counters["episodes_total",]
    assert lines[-1]["insert_blocked_seconds"] <= counters["insert_blocked_seconds_total",]


class DivergingRuntime(SimulatedRuntime):
    """Its learner's losses become infinite after 100 updates."""

    def effect(self, event: Event) -> object:
        if event.method == "update" and self.done >= 100:
            raise FloatingPointError("training diverged")
        return super().effect(event)


def test_a_run_that_diverges_says_so_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cluster.simulated.SimulatedRuntime", DivergingRuntime)
    seen: list[Coordinator] = []
    with pytest.raises(FloatingPointError):
        simulate(config(), tmp_path, watch=lambda coordinator, _: seen.append(coordinator))
    public = seen[-1].telemetry.public
    assert public.gauges["diverged",] == 1
    assert public.counters["updates_total",] >= 100
