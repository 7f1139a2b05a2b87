from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cluster.benchmarks.learner import noise_batches
from common.config import ReplayConfig
from common.presets import smoke
from learner.batch import Batch
from learner.learner import Learner
from tests.learner.test_sequence_losses import Source

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.mark.usefixtures("no_tf32")
def test_gpu_and_cpu_give_the_same_losses_and_gradients() -> None:
    config = smoke()
    on_cpu, on_gpu = (Learner(config, 3, noise_batches(config, 3), device) for device in ("cpu", "cuda"))
    on_gpu.restore(on_cpu.state() | {"optimisers.safetensors": on_gpu.state()["optimisers.safetensors"]})
    rows = next(on_cpu.feed.batches)
    noise = on_cpu.draw_noise(config.training.batch_size, config.training.batch_length)
    losses, *_ = on_cpu.losses(Batch.from_rows(rows, on_cpu.device), noise)
    moved = {name: value.cuda() for name, value in noise.items()}
    gpu_losses, *_ = on_gpu.losses(Batch.from_rows(rows, on_gpu.device), moved)
    for name, optimiser in on_cpu.optimisers.items():
        torch.testing.assert_close(gpu_losses[name].cpu(), losses[name], rtol=1e-4, atol=1e-4)
        gradients = zip(
            optimiser.gradients(losses[name]), on_gpu.optimisers[name].gradients(gpu_losses[name]), strict=True
        )
        for expected, gradient in gradients:
            assert (gradient.cpu() - expected).norm() <= 1e-3 * expected.norm() + 1e-6


def test_an_update_never_waits_for_the_gpu() -> None:
    config = smoke()
    learner = Learner(config, 3, noise_batches(config, 3), "cuda")
    batch = next(learner.feed)
    learner.learn(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.learn(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_losses_of_each_sequence_come_back_from_the_gpu_whole() -> None:
    config = dataclasses.replace(smoke(), replay=ReplayConfig(sampling="prioritized"))
    source = Source(noise_batches(config, 3))
    learner = Learner(config, 3, source, "cuda")
    noise = learner.generator.get_state()
    learner.update(3)
    assert [origin for origin, _ in source.told] == [1, 2, 3]
    again = Learner(config, 3, Source(noise_batches(config, 3)), "cuda")
    again.generator.set_state(noise)
    batch = next(again.feed)
    expected = again.losses(batch, again.draw_noise(*batch.reward.shape)).by_sequence
    assert expected is not None
    np.testing.assert_allclose(source.told[0][1], expected.cpu().numpy(), rtol=1e-3)
