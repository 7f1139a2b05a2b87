"""Rows that stay on a GPU, and batches that are gathered there, beside those that the CPU puts together."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.runtimes.assembly import DeviceAssembly
from cluster.runtimes.inline_batches import InlineBatches
from cluster.runtimes.on_device import make_assembly, rows_per_shard
from cluster.runtimes.roles import Setting
from common.config import Config, ReplayOnDevice
from learner.batch import Batch
from learner.capture import WARM_UPS
from learner.device_rows import OnDevice, row_bytes
from learner.feed import Feed
from learner.learner import Learner
from replay_service.replay import Replay, open_replay
from tests.cluster.test_on_device import ACTIONS, arrivals, assert_same_batch, config_of
from tests.gpu.test_capture_on_gpu import no_waiting

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


class Side:
    """Batches of a replay of its own; those of two sides with the same chunks are the same."""

    def __init__(self, config: Config, choice: ReplayOnDevice, device: str) -> None:
        config = replace(config, replay_on_device=choice)
        self.replay: Replay = open_replay(config, None, 0, ACTIONS)
        assembly = make_assembly(Setting(config, ACTIONS, "auto", Path(), device))
        self.batches = InlineBatches([self.replay], assembly, seed=0, patience_seconds=0.0)
        self.feed = Feed(self.batches, torch.device(device))


def on_cpu(batch: Batch) -> Batch:
    return batch.map(torch.Tensor.cpu)


@pytest.mark.parametrize("packs", ["never", "some"])
def test_batches_are_the_cpus_and_nothing_is_overwritten_while_the_gpu_is_behind(packs: str) -> None:
    """Batches are looked at in the end; the GPU sleeps in between, so that the next are put together long before."""
    config = config_of("memory")
    cpu, gpu = Side(config, "off", "cpu"), Side(config, "auto", "cuda")
    assert isinstance(gpu.batches.assembly, DeviceAssembly)
    expected, found = [], []
    for _, data in zip(range(60), arrivals(packs), strict=False):
        for side in (cpu, gpu):
            side.replay.insert(data)
        if not cpu.replay.windows:
            continue
        torch.cuda._sleep(20_000_000)
        expected.append(next(cpu.feed).map(torch.clone))
        found.append(next(gpu.feed))
    assert len(found) > 30
    for one, other in zip(found, expected, strict=True):
        assert_same_batch(on_cpu(one), other)


def test_gathering_never_waits_for_the_gpu() -> None:
    side = Side(config_of("memory"), "on", "cuda")
    for _, data in zip(range(12), arrivals("never"), strict=False):
        side.replay.insert(data)
    next(side.feed)
    for _ in range(10):
        batch = next(side.batches)
        assert isinstance(batch, OnDevice)
        with no_waiting():
            batch.batch()


def test_memory_is_taken_at_the_start_and_does_not_grow() -> None:
    config = config_of("memory")
    gc.collect()
    before = torch.cuda.memory_allocated()
    side = Side(config, "on", "cuda")
    taken = torch.cuda.memory_allocated() - before
    tables = rows_per_shard(config) * row_bytes(ACTIONS)
    assert tables <= taken <= tables + 5 * 512, "the allocator rounds each table up"
    for _, data in zip(range(100), arrivals("never"), strict=False):
        side.replay.insert(data)
        if side.replay.windows:
            next(side.feed)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before <= taken


def test_captured_updates_learn_from_the_same_batches() -> None:
    config = replace(config_of("memory"), compile="default")
    sides = [Side(config, choice, "cuda") for choice in ("off", "on")]
    for _, data in zip(range(12), arrivals("never"), strict=False):
        for side in sides:
            side.replay.insert(data)
    learners = [Learner(config, ACTIONS, side.batches, "cuda") for side in sides]
    for _ in range(WARM_UPS + 6):
        ordinary, on_device = (learner.update(1).metrics for learner in learners)
        assert on_device == pytest.approx(ordinary, rel=1e-2, abs=1e-2)
        newest = [learner.newest for learner in learners]
        assert newest[0] is not None
        assert newest[1] is not None
        assert_same_batch(on_cpu(newest[1]), on_cpu(newest[0]))
    assert learners[1].captured is not None
    assert learners[1].captured.recording is not None
