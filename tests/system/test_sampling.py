"""Whole runs by each way of drawing windows, and losses that find their way to the shards over Ray."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray

from cluster.main import main
from cluster.runtimes.ray_batches import PREFETCH
from cluster.runtimes.ray_runtime import batches, connect, start_actor
from cluster.runtimes.ray_shard import ReplayShard
from cluster.runtimes.roles import Setting
from common.config import ReplayConfig, Sampling
from common.presets import smoke
from common.run_folder import RunFolder
from common.sequence import StreamKey
from replay_service.codec import encode
from tests.replay_service.episodes import ACTION_SIZE, make_episode
from tests.system.test_determinism import TINY, train, untimed

CHUNK, CHUNKS = 10, 20
SETTINGS = [*TINY, "--env-steps", "600", "--training.log-every", "1"]


@pytest.mark.parametrize("sampling", ["recent", "prioritized"])
def test_the_same_seed_draws_the_same_windows_and_another_way_draws_others(sampling: Sampling, tmp_path: Path) -> None:
    first, second = (train(tmp_path / name, *SETTINGS, "--replay.sampling", sampling) for name in "ab")
    uniform = train(tmp_path / "c", *SETTINGS)
    assert untimed(first.metrics()) == untimed(second.metrics())
    losses, others = ([line.get("model_loss") for line in run.metrics()] for run in (first, uniform))
    assert len(losses) == len(others) > 5
    assert losses != others


@pytest.fixture
def local_ray() -> Iterator[None]:
    connect("", 3)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(("store", "method"), [("memory", "sample"), ("lmdb", "draw")])
def test_losses_told_over_ray_decide_what_is_drawn_next(
    store: str, method: str, tmp_path: Path, local_ray: None
) -> None:
    config = dataclasses.replace(
        smoke(), replay_store=store, replay=ReplayConfig(sampling="prioritized", priority_exponent=1.0, shards=2)
    )
    setting = Setting(config, ACTION_SIZE, "auto", tmp_path / "replay", "cpu")
    shards = [start_actor("replay", partial(ReplayShard, setting, number)) for number in range(2)]
    for number, shard in enumerate(shards):
        chunks = make_episode(number, [CHUNK] * CHUNKS, StreamKey(number, 0, 0))
        ray.get(shard.call.remote("insert", [encode(chunk) for chunk in chunks]))
    supply = batches(setting, shards)
    for _ in range(150):
        rows = next(supply)
        firsts = rows.reward[:, 0]  # 1,000 · shard + row, as `make_rows` writes them
        supply.prioritise(supply.origin, np.where(firsts // CHUNK == 100, 1000.0, 0.001).astype(np.float32))
    assert supply.methods == [method] * 2
    for _ in range(PREFETCH + 1):  # drawn before the last losses were told
        next(supply)
    drawn = np.concatenate([next(supply).reward[:, 0].copy() for _ in range(20)])
    supply.close()
    of_one = drawn[drawn >= 1000]
    assert (of_one // CHUNK == 100).mean() > 0.95  # its first chunk, the only one that the model finds hard
    assert len(np.unique(drawn[drawn < 1000] // CHUNK)) > 5


@pytest.mark.slow
def test_a_run_over_ray_draws_by_priority(tmp_path: Path) -> None:
    arguments = "train --preset smoke --device cpu --replay.sampling prioritized --run-dir"
    assert main([*arguments.split(), str(tmp_path)]) == 0
    summary = RunFolder(tmp_path).summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["role_restarts"] == {}
