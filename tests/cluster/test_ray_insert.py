"""Chunks that the coordinator inserts over Ray, and a shard that refuses them."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import ray
from ray.exceptions import RayTaskError

from cluster.runtimes import ray_runtime
from cluster.runtimes.ray_runtime import RayRuntime
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import Role
from common.presets import smoke
from replay_service.stores.trouble import StoreDamagedError
from tests.replay_service.episodes import make_episode


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (StoreDamagedError("shard-0 is damaged"), "shard-0 is damaged"),
        (ZeroDivisionError("a bug"), "Traceback: remote"),
    ],
)
def test_a_refusal_is_the_shard_s_own_line_and_a_bug_keeps_its_traceback(
    cause: Exception, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RayTaskError("call", "Traceback: remote", cause).as_instanceof_cause()
    monkeypatch.setattr(ray_runtime, "connect", Mock())
    monkeypatch.setattr(ray, "get", Mock(side_effect=remote))
    runtime = RayRuntime(Setting(smoke(), 1, "auto", tmp_path, "cpu"))
    runtime.actors[Role("replay", 0)] = Mock()
    with pytest.raises(type(cause)) as raised:
        runtime.insert(0, make_episode(0, [2]))
    assert str(raised.value) == text
