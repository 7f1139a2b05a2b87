"""Starting a Ray of one's own."""

from __future__ import annotations

import time
from typing import Any

import pytest
import ray
from ray._private import services

from cluster.runtimes import ray_runtime
from cluster.runtimes.ray_runtime import connect
from common.errors import UserError
from tests.free_port import free_port


def late(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Ray's node registers so much later, as where its processes get no turn."""
    get_node, begin = services.get_node, time.monotonic()

    def get_node_late(*args: Any) -> Any:
        if time.monotonic() - begin < seconds:
            raise RuntimeError("no such node")
        return get_node(*args)

    monkeypatch.setattr(services, "get_node", get_node_late)


def test_without_an_address_a_local_ray_is_started_whatever_else_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # as a cluster on this machine would have others set it
    connect("", roles=3)
    try:
        assert ray.cluster_resources()["CPU"] >= 3
        assert len(ray.nodes()) == 1
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_a_busy_machine_has_longer_than_half_a_minute_to_start_it(monkeypatch: pytest.MonkeyPatch) -> None:
    late(monkeypatch, seconds=33.0)
    connect("", roles=3)
    try:
        assert len(ray.nodes()) == 1
    finally:
        ray.shutdown()


def test_a_machine_too_busy_for_ray_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    late(monkeypatch, seconds=1e9)
    monkeypatch.setattr(ray_runtime, "START_SECONDS", 0.5)
    with pytest.raises(UserError, match="this machine has too much else to do"):
        connect("", roles=3)
    assert not ray.is_initialized()


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
def test_an_address_at_which_nobody_answers_is_one_clear_line(host: str) -> None:
    with pytest.raises(UserError, match=f"--ray-address {host}:.*: nobody answers there"):
        connect(f"{host}:{free_port()}", roles=3)
    assert not ray.is_initialized()
