"""`dreamfleet benchmark`: each part gives every key of system.md section 6. How fast is no test's business."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import ray

from cluster.benchmarks import actors, replay, window_index
from cluster.benchmarks.measure import interleaved, rate
from cluster.benchmarks.ready_frames import STEPS, make
from cluster.main import main

MACHINE = {"cpu", "cores", "gpu", "python", "torch", "ray"}
SMOKE = ["--preset", "smoke", "--device", "cpu", "--json"]


def figures(args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What the benchmark prints as JSON; holds what all benchmarks promise."""
    capsys.readouterr()
    assert main(["benchmark", *args]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"].keys() == MACHINE
    assert not ray.is_initialized()
    return found


def assert_positive(found: dict[str, Any], *keys: str) -> None:
    for key in keys:
        assert math.isfinite(found[key]), key
        assert found[key] > 0, key


def test_learner(capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(["learner", *SMOKE, "--rounds", "1", "--updates", "1"], capsys)
    assert_positive(
        found,
        "updates_per_second",
        "eager_updates_per_second",
        "speedup",
        "flops_per_update",
        "achieved_flops_per_second",
        "peak_memory_bytes",
        "eager_peak_memory_bytes",
    )
    images = 4 * 8 * 64 * 64 * 3 * 4  # one batch of them in float32, which the loss must hold
    assert images < found["peak_memory_bytes"] < 20 * images
    assert found["precision"] == found["eager_precision"] == "float32"
    assert found["compile"] == "none"
    assert found["syncs_per_update"] is None, "there is no GPU to wait for"
    assert found["speedup"] == pytest.approx(found["updates_per_second"] / found["eager_updates_per_second"])
    assert found["achieved_flops_per_second"] == pytest.approx(found["flops_per_update"] * found["updates_per_second"])


@pytest.mark.slow
def test_actors(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors, "SECONDS", 0.5)
    found = figures(["actors", *SMOKE, "--rounds", "1", "--processes", "1"], capsys)
    assert_positive(
        found,
        "env_steps_per_second",
        "raw_env_steps_per_second",
        "ratio",
        "policy_microseconds_per_env_step",
        "policy_share",
    )
    assert found["policy_share"] == pytest.approx(
        found["env_steps_per_second"] * found["policy_microseconds_per_env_step"] / 1e6
    )
    assert found["ratio"] == pytest.approx(found["env_steps_per_second"] / found["raw_env_steps_per_second"])
    assert (found["processes"], found["task"], found["rendering"]) == (1, "cartpole_balance", "fast")


@pytest.mark.slow
@pytest.mark.parametrize("store", ["memory", "lmdb"])
def test_replay(store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in (("ROWS_HELD", 1000), ("ROWS_INSERTED", 200), ("BATCHES", 4)):
        monkeypatch.setattr(replay, name, count)
    monkeypatch.setattr(window_index, "MANY_ROWS", 20_000)
    found = figures(["replay", *SMOKE, "--rounds", "1", "--replay-store", store], capsys)
    assert_positive(
        found,
        "batches_per_second",
        "bytes_per_second",
        "transport_bytes_per_second",
        "memcpy_bytes_per_second",
        "ratio",
        "insert_rows_per_second",
        "index_seconds_per_batch_10k_rows",
        "index_seconds_per_batch_10m_rows",
        "index_ratio",
    )
    assert found["store"] == store
    assert found["ratio"] == pytest.approx(found["bytes_per_second"] / found["transport_bytes_per_second"])
    assert found["batch_bytes"] == 4 * 8 * (64 * 64 * 3 + 4 * 3 + 1)


@pytest.mark.slow
def test_system(capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(["system", *SMOKE, "--seconds", "4", "--recorded-frames"], capsys)
    assert_positive(
        found, "env_steps_per_second", "updates_per_second", "learner_alone_updates_per_second", "ratio", "seconds"
    )
    assert found["weights_lag_seconds"] >= 0
    assert found["task"] == "cluster.benchmarks.ready_frames:make"
    assert found["ratio"] == pytest.approx(found["updates_per_second"] / found["learner_alone_updates_per_second"])


def test_rounds_are_interleaved_and_give_medians() -> None:
    taken: list[str] = []
    values = {"a": iter([1.0, 9.0, 2.0]), "b": iter([5.0, 4.0, 6.0])}

    def measure(name: str) -> float:
        taken.append(name)
        return next(values[name])

    medians = interleaved({"a": lambda: measure("a"), "b": lambda: measure("b")}, rounds=3)
    assert medians == {"a": 2.0, "b": 5.0}
    assert taken == ["a", "b"] * 3


def test_rate_counts_calls() -> None:
    calls: list[int] = []
    assert rate(lambda: calls.append(1), 7) > 0
    assert len(calls) == 7


def test_ready_frames_play_a_whole_episode_and_depend_on_the_seed() -> None:
    environment = make(0)
    step, count = environment.reset(), 0
    while not step.last():
        step = environment.step(environment.action_spec().generate_value())
        count += 1
    assert count == STEPS
    assert step.discount == 1
    assert (make(0).reset().observation["image"] == environment.reset().observation["image"]).all()
    assert (make(1).reset().observation["image"] != environment.reset().observation["image"]).any()
