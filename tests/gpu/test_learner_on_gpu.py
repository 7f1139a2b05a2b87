from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from cluster.benchmarks.learner import noise_batches
from common.presets import smoke
from learner.batch import Batch
from learner.learner import Learner

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
    rows = next(on_cpu.batches)
    noise = on_cpu.draw_noise(config.training.batch_size, config.training.batch_length)
    losses, _ = on_cpu.losses(Batch.from_rows(rows, on_cpu.device), noise)
    moved = {name: value.cuda() for name, value in noise.items()}
    gpu_losses, _ = on_gpu.losses(Batch.from_rows(rows, on_gpu.device), moved)
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
    batch = Batch.from_rows(next(learner.batches), learner.device)
    learner.learn(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.learn(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
