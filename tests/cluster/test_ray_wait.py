"""How a call that failed over Ray is told: whose process is of no use any more is gone."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
import ray
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError

from cluster.runtimes import ray_runtime
from cluster.runtimes.ray_runtime import RayRuntime
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import Role
from common.errors import EnvironmentFailedError, UserError
from common.presets import smoke

COLLECTOR = Role("collector", 3)


def raised_remotely(cause: Exception) -> Exception:
    error: Exception = RayTaskError("call", "Traceback: remote", cause).as_instanceof_cause()
    return error


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayRuntime:
    """A call of a collector has ended."""
    answer = Mock()
    monkeypatch.setattr(ray_runtime, "connect", Mock())
    monkeypatch.setattr(ray, "wait", Mock(return_value=([answer], [])))
    runtime = RayRuntime(Setting(smoke(), 1, "auto", tmp_path, "cpu"))
    runtime.actors[COLLECTOR] = Mock()
    runtime.calls[answer] = (COLLECTOR, "collect")
    return runtime


@pytest.mark.parametrize(
    ("error", "killed", "why"),
    [
        (ActorDiedError(), 0, "actor died"),
        (ObjectLostError("00ff", "", ""), 1, "lost"),
        (raised_remotely(EnvironmentFailedError("environment 1 cannot be built: EGL")), 1, "environment 1 cannot be"),
    ],
    ids=["it died", "its answer is lost with its node", "it can build no environment"],
)
def test_a_process_that_is_gone_or_of_no_use_has_died(
    runtime: RayRuntime, monkeypatch: pytest.MonkeyPatch, error: Exception, killed: int, why: str
) -> None:
    kill = Mock()
    monkeypatch.setattr(ray, "kill", kill)
    monkeypatch.setattr(ray, "get", Mock(side_effect=error))
    call = runtime.wait(1.0)
    assert call is not None
    assert (call.role, call.method, call.failed) == (COLLECTOR, "collect", None)
    assert why in str(call.died)
    assert kill.call_count == killed
    assert not runtime.calls


def test_bad_input_ends_the_run_and_a_bug_keeps_its_traceback(
    runtime: RayRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = dict(runtime.calls)
    monkeypatch.setattr(ray, "get", Mock(side_effect=raised_remotely(UserError("no such task"))))
    call = runtime.wait(1.0)
    assert call is not None
    assert str(call.failed) == "no such task"
    runtime.calls = calls
    monkeypatch.setattr(ray, "get", Mock(side_effect=raised_remotely(ZeroDivisionError("a bug"))))
    with pytest.raises(ZeroDivisionError, match="Traceback: remote"):
        runtime.wait(1.0)
