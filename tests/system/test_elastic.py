"""A real run whose collectors come and go with what its learner needs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from cluster.adjust import main as adjust
from cluster.fleet import Fleet
from cluster.train import main as train
from common.run_folder import RunFolder
from tests.system.test_recovery import assert_whole, on, stored_chunks

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 900.0


@pytest.fixture
def address(patient_ray: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A node with room for eight roles, whatever this machine has, on which environments are slow."""
    monkeypatch.setenv("TINY_STEP_SECONDS", "0.05")
    head: dict[str, Any] = {"num_cpus": 8, "object_store_memory": 128 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def fleets(monkeypatch: pytest.MonkeyPatch) -> list[Fleet]:
    """The collectors of each run that begins, and judgements within seconds instead of minutes."""
    begun: list[Fleet] = []
    begin = Fleet.begin

    def noted(fleet: Fleet, size: int | None) -> None:
        begin(fleet, size)
        begun.append(fleet)

    monkeypatch.setattr(Fleet, "begin", noted)
    monkeypatch.setattr("cluster.demand.GROW_SECONDS", 3.0)
    monkeypatch.setattr("cluster.demand.SHRINK_SECONDS", 3.0)
    return begun


def trained_until(condition: Callable[[], bool], args: list[str]) -> None:
    """A run that is stopped, as Ctrl-C does it, once the condition holds."""

    def watch() -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and not condition():
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    assert train(args) == 0
    thread.join()
    assert condition()


def test_collectors_join_while_the_learner_waits_and_leave_when_they_do(
    address: str, fleets: list[Fleet], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    args = on("slow", "--ray-address", address, "--run-dir", str(folder), "--actors", "1", "--actors-max", "3")
    args += ["--env-steps", "100000", "--eval-every", "0"]
    args += ["--train-ratio", "0.002", "--replay.prefill", "200", "--replay.pretrain", "1"]  # the learner soon waits

    def has_grown() -> bool:
        working = fleets[-1].working if fleets else []
        return len(working) > 1 and all(fleets[-1].supervisor.is_here(role) for role in working)

    trained_until(has_grown, args)
    most = len(fleets[0].working)
    assert "collectors from here on, and were 1: the learner waited for them" in capfd.readouterr().out

    adjust([str(folder), "--train-ratio", "20"])
    trained_until(lambda: len(fleets) > 1 and len(fleets[1].collectors) < most, args)
    assert "of them had nothing to do on average" in capfd.readouterr().out
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert not summary["role_restarts"]
    chunks = stored_chunks(folder)
    assert_whole(chunks)
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]
