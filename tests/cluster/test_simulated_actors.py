"""`dreamfleet benchmark system --simulate-actors`: many collectors in few processes, each a role of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping

import numpy as np
import pytest
import ray

from cluster.benchmarks.crowd import SimulatedPolicy
from cluster.benchmarks.sampler import Sampler, growth
from cluster.benchmarks.scale import behind
from cluster.main import main
from cluster.weights import Weights
from tests.cluster.commands import one_line_and_exit_2

SYSTEM = ["benchmark", "system", "--preset", "smoke", "--device", "cpu"]


@pytest.mark.slow
def test_simulated_actors_share_processes_and_are_roles_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--simulate-actors", "8", "--processes", "2", "--seconds", "4", "--train-ratio", "0.01", "--json"]
    assert main([*SYSTEM, *args]) == 0
    assert not ray.is_initialized()
    found = json.loads(capsys.readouterr().out)
    for key in ("env_steps_per_second", "learner_alone_updates_per_second", "coordinator_calls_per_second"):
        assert found[key] > 0, key
    assert found["ratio"] == pytest.approx(found["updates_per_second"] / found["learner_alone_updates_per_second"])
    assert (found["simulated_actors"], found["processes"], found["role_restarts"]) == (8, 2, {})
    assert {f"collector_{number}" for number in range(8)} <= found["resident_bytes"].keys()
    crowds = {name for name in found["memory"] if name.startswith("Crowd")}
    assert crowds == {"Crowd 0", "Crowd 1"}
    assert found["memory"]["Replay 0"]["late"] > 10e6
    assert 0 < found["coordinator_cpu_share"] < 2
    assert found["weights_published"] > 0
    assert found["weights_lag_seconds_max"] >= 0
    samples = found["samples"]
    assert len(samples["seconds"]) == len(samples["object_store_bytes"]) == len(samples["memory"]["Crowd 0"]) > 0


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--simulate-actors", "-1"], "--simulate-actors must be between 0 and 4096, not -1"),
        (["--simulate-actors", "5000"], "--simulate-actors must be between 0 and 4096, not 5000"),
        (["--simulate-actors", "2", "--processes", "3"], "--processes 3 is more than --simulate-actors 2"),
        (["--simulate-actors", "2", "--simulated-speed", "-1"], "--simulated-speed must be between 0 and 1000000"),
        (["--simulate-actors", "2", "--simulated-speed", "nan"], "--simulated-speed must be between 0 and 1000000"),
        (["--simulate-actors", "2", "--ray-address", "auto"], "--simulate-actors measures this machine"),
        (["--simulate-actors", "2000", "--replay.capacity", "5000"], "--replay.capacity 5000"),
    ],
)
def test_a_fleet_that_cannot_be_is_refused(args: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in one_line_and_exit_2([*SYSTEM, *args], capsys)


def test_only_the_system_has_simulated_actors(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["benchmark", "replay", "--preset", "smoke", "--simulate-actors", "4"]
    assert "--simulate-actors is for benchmark system, not replay" in one_line_and_exit_2(args, capsys)


def test_a_simulated_policy_is_never_faster_than_drawing_and_does_not_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    policy = SimulatedPolicy(2, seed=0, seconds=0.5)
    images = np.zeros((3, 64, 64, 3), np.uint8)
    acted = []
    for pause in (0.0, 0.0, 0.0, 7.0, 0.0):
        clock[0] += pause
        actions, _ = policy.act(images)
        assert actions.shape == (3, 2)
        acted.append(clock[0])
    assert acted == [10.0, 10.5, 11.0, 18.0, 18.5]


def test_a_simulated_policy_keeps_a_copy_of_its_weights() -> None:
    policy = SimulatedPolicy(2, seed=0, seconds=0.0)
    weights: Mapping[str, np.ndarray] = {"w": np.ones(3, np.float32)}
    policy.load_weights(weights)
    weights["w"][:] = 2
    assert policy._weights["w"].tolist() == [1, 1, 1]


def test_weights_are_behind_from_the_moment_that_newer_ones_are_there() -> None:
    published = {version: Weights(version, 10 * version, None, at) for version, at in ((3, 100.0), (4, 110.0))}
    acted = {
        0: {0: 99.0, 3: 110.5, 4: 120.0},  # half a second behind
        1: {0: 99.0, 4: 120.0},  # had no work while version 3 was the newest
        2: {0: 103.0, 3: 109.0},  # three seconds behind, and has not acted since
    }
    assert list(behind(acted, published)) == [0.0, 0.5, 0.0, 3.0, 0.0]


def test_the_sampler_sees_every_descendant_under_its_name_and_what_it_holds() -> None:
    script = "import sys; held = bytearray(60_000_000); held[::4096] = b'x' * len(held[::4096]); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    with Sampler(every=0.05, figures=lambda: {"answer": 42.0}) as sampler:
        while not any(look.memory.get(child.pid, 0) > 60e6 for look in sampler.looks):
            time.sleep(0.05)
    child.communicate(b"")
    assert sampler.looks[-1].figures == {"answer": 42.0}
    assert os.getpid() in sampler.looks[-1].memory
    newest = [held[-1][1] for held in sampler.series().values()]
    assert any(60e6 < held < 90e6 for held in newest)
    assert sampler.cpu_seconds > 0


def test_growth_is_told_from_what_has_settled() -> None:
    settled = [(float(second), 50 if second < 20 else 100) for second in range(100)]
    assert growth(settled) == (100, 100, 0)
    leaking = [(float(second), 100 + second) for second in range(100)]
    assert growth(leaking).per_hour == pytest.approx(3600)
    assert growth(leaking).late - growth(leaking).early == pytest.approx(50)
