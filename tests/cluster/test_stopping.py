"""A run that is asked to stop saves first, and does not wait for whoever hangs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cluster.coordinator import Coordinator
from cluster.optional import GivenUpError, OptionalWork, optional_work
from tests.cluster.simulated import Faults, SimulatedRuntime, config, simulate


def test_a_collector_that_hangs_is_left_behind(tmp_path: Path) -> None:
    stopped_at: list[float] = []

    def stop(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if runtime.counts["collector", "collect"] == 8 and not stopped_at:  # the eighth is under way, and hangs
            stopped_at.append(runtime.now)
            coordinator.stop_requested = True

    run = simulate(config(actors=1), tmp_path, faults=Faults(hangs={("collector", "collect"): {7}}), watch=stop)
    assert not run.summary["finished"]
    assert "collector 0 has not come back for 8 s: ending without it" in run.text
    assert "died and starts again" not in run.text
    assert run.runtime.now - stopped_at[0] < 20
    checkpoint = run.folder.newest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.updates == run.summary["updates"] == run.runtime.done
    resumed = simulate(config(actors=1), tmp_path, disk=run.runtime.disk)
    assert resumed.summary["finished"]
    assert resumed.summary["env_steps"] == run.runtime.disk.env_steps, "what it had inserted before it hung counts"


@pytest.mark.parametrize(
    ("method", "stop_at"),
    [
        pytest.param("report", 150, id="it hung before"),
        pytest.param("random_state", 100, id="when it is to be saved"),
        pytest.param("report", 100, id="when it is asked what it holds"),
    ],
)
def test_a_shard_that_hangs_is_given_up_and_the_run_saved(tmp_path: Path, method: str, stop_at: int) -> None:
    stopped_at: list[float] = []

    def stop(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        if runtime.done >= 100 and not runtime.faults.hangs:
            runtime.faults.hangs["replay", method] = {runtime.counts["replay", method]}
        if runtime.done >= stop_at and not stopped_at:
            stopped_at.append(runtime.now)
            coordinator.stop_requested = True

    run = simulate(config(), tmp_path, watch=stop)
    assert run.text.count(f"replay 0 has not come back from {method} for 8 s: ending without it") == 1
    assert run.runtime.now - stopped_at[0] < 20
    assert "died and starts again" not in run.text
    checkpoint = run.folder.newest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.updates == run.summary["updates"] == run.runtime.done
    resumed = simulate(config(), tmp_path, disk=run.runtime.disk)
    assert resumed.summary["finished"]
    assert resumed.summary["env_steps"] == run.runtime.disk.env_steps
    assert resumed.coordinator.limiter.lost_env_steps == 0


def test_the_checkpoint_comes_before_the_calls_of_others(tmp_path: Path) -> None:
    saved_with: list[int] = []

    def stop(coordinator: Coordinator, runtime: SimulatedRuntime) -> None:
        coordinator.stop_requested = coordinator.stop_requested or runtime.done > 50
        if coordinator.stop_requested and runtime.called[-1][1] == "state":
            saved_with.append(sum(role.kind == "collector" for role in coordinator.busy))

    simulate(config(), tmp_path, watch=stop, env_steps_per_second=50.0)
    assert saved_with
    assert saved_with[0] > 0
    assert saved_with[-1] == 0, "and once more when all have sent what they held"


def test_optional_work_is_left_by_a_signal_wherever_it_is() -> None:
    work = OptionalWork()
    done: list[str] = []

    def long() -> None:
        try:
            done.append("begun")
            os.kill(os.getpid(), signal.SIGUSR1)
            done.append("not reached")
        except Exception:
            done.append("taken for a failure")

    previous = signal.signal(signal.SIGUSR1, lambda *_: work.give_up())
    try:
        work(long)
        work(long)
        os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert done == ["begun"], "left once, and not begun again"


def test_what_optional_work_raises_itself_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        optional_work(lambda: 1 // 0)
    assert issubclass(GivenUpError, BaseException)
    assert not issubclass(GivenUpError, Exception)
