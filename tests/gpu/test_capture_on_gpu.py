"""The update as a CUDA graph, really recorded and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from cluster.benchmarks.learner import noise_batches
from cluster.benchmarks.waits import waits
from common.config import Compile, Config, Precision
from common.presets import smoke
from learner.behaviors import BEHAVIORS
from learner.capture import WARM_UPS
from learner.learner import Learner

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def make_learner(config: Config) -> Learner:
    return Learner(config, 3, noise_batches(config, 3), "cuda")


def replaying(config: Config) -> Learner:
    """A learner whose updates are replays from here on."""
    learner = make_learner(config)
    learner.update(WARM_UPS + 1)
    assert learner.captured is not None
    assert learner.captured.recording is not None
    return learner


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def flat(learner: Learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.modules.parameters()])


def assert_next_updates_agree(captured: Learner, plain: Learner, tolerance: float) -> None:
    """From the same state, with the same noise: one update each, again and again."""
    for _ in range(5):
        plain.restore(captured.state())
        expected = plain.update(1).metrics
        assert captured.update(1).metrics == pytest.approx(expected, rel=tolerance, abs=tolerance)
        assert (flat(captured) - flat(plain)).norm() <= tolerance * flat(plain).norm()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bf16", 1e-2)])
@pytest.mark.parametrize("algorithm", BEHAVIORS)
def test_a_captured_update_is_the_plain_one(algorithm: str, precision: Precision, tolerance: float) -> None:
    config = replace(smoke(), algorithm=algorithm, precision=precision)
    assert_next_updates_agree(replaying(replace(config, compile="default")), make_learner(config), tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 2e-2)])
def test_a_captured_update_of_compiled_networks_is_the_plain_one(precision: Precision, tolerance: float) -> None:
    config = replace(smoke(), precision=precision)
    captured = replaying(replace(config, compile="max"))
    assert captured.compiled
    assert_next_updates_agree(captured, make_learner(config), tolerance)


@pytest.mark.parametrize("compile_", ["default", "max"])
def test_a_replayed_update_never_waits_for_the_gpu(compile_: Compile) -> None:
    learner = replaying(replace(smoke(), compile=compile_))
    batch = next(learner.feed)
    with no_waiting():
        learner.learn(batch)


def test_the_benchmark_counts_how_often_the_host_waits() -> None:
    scalar = torch.ones((), device="cuda")
    assert waits(lambda: [scalar.item() for _ in range(3)], "cuda") == 3
    assert waits(lambda: scalar + 1, "cuda") == 0


def test_noise_differs_between_replays() -> None:
    config = smoke()
    still = replace(config.world_model, learning_rate=0.0)
    learner = replaying(replace(config, compile="default", world_model=still))
    losses = [learner.update(1).metrics["model_loss"] for _ in range(5)]
    assert len(set(losses)) == len(losses)


def test_a_restored_learner_is_recorded_anew_and_goes_on_from_there() -> None:
    config = replace(smoke(), compile="default")
    learner = replaying(config)
    files = learner.state()
    learner.update(2)
    learner.restore(files)
    assert learner.state() == files
    learner.update(WARM_UPS + 1)
    assert learner.captured is not None
    assert learner.captured.recording is not None
    assert_next_updates_agree(learner, make_learner(replace(config, compile="none")), 1e-4)
