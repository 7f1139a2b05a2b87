"""Batches over Ray from shards that are empty for a while; Ray itself is left out."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from cluster.runtimes import ray_batches
from cluster.runtimes.assembly import HostAssembly
from cluster.runtimes.ray_batches import RayBatches
from cluster.runtimes.ray_shard import ReplayShard
from cluster.runtimes.roles import Setting
from common.config import Config
from common.errors import NoWindowsError
from common.presets import smoke
from common.sequence import Rows
from replay_service.codec import encode
from tests.replay_service.episodes import make_episode


def batches_of(config: Config, folder: Path) -> tuple[RayBatches, ReplayShard]:
    """Batches of four windows from a shard in memory."""
    shard = ReplayShard(Setting(config, 1, "auto", folder, "cpu"), 0)
    handle: Any = SimpleNamespace(
        call=SimpleNamespace(remote=lambda method, *arguments: getattr(shard, method)(*arguments))
    )
    length = config.training.batch_length
    assembly = HostAssembly(lambda: Rows.empty((4, length), 1))
    batches = RayBatches([handle], assembly=assembly, action_size=1, seed=0, direct=False, patience_seconds=0.0)
    return batches, shard


def test_a_store_that_is_away_keeps_the_learner_no_longer_than_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()

    def get(answer: Any) -> Any:
        back.wait()
        return answer

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray_batches, "BATCH_SECONDS", 0.1)
    config = dataclasses.replace(smoke(), replay_store="memory")
    batches, shard = batches_of(config, tmp_path)
    (chunk,) = make_episode(0, [3 * config.training.batch_length], action_size=1)
    shard.insert([np.frombuffer(encode(chunk), np.uint8)])
    waited_for = set()
    for _ in range(2):
        with pytest.raises(NoWindowsError):
            next(batches)
        waited_for.add(batches.coming)
    assert len(waited_for) == 1, "the batch under way is not asked for again"
    back.set()
    monkeypatch.setattr(ray_batches, "BATCH_SECONDS", 60.0)
    for _ in range(2):
        assert set(next(batches).reward.ravel()) <= set(chunk.rows.reward)
    batches.close()


def test_shards_without_a_window_are_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray_batches, "EMPTY_PATIENCE_SECONDS", 0.3)
    config = dataclasses.replace(smoke(), replay_store="memory")  # a file's place would be asked of Ray
    length = config.training.batch_length
    batches, shard = batches_of(config, tmp_path)
    for _ in range(2):
        with pytest.raises(NoWindowsError):
            next(batches)
    (chunk,) = make_episode(0, [3 * length], action_size=1)
    shard.insert([np.frombuffer(encode(chunk), np.uint8)])
    for _ in range(4):
        assert set(next(batches).reward.ravel()) <= set(chunk.rows.reward)
    batches.close()
    assert not ray.is_initialized()
