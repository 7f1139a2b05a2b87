"""Nodes of a real Ray cluster on this machine that come and go while a run goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from common.run_folder import RunFolder
from replay_service.stores.redis import RedisStore
from tests.redis_server import RedisServer
from tests.system.processes import Training
from tests.system.test_recovery import assert_whole, chunks_in

pytestmark = pytest.mark.slow

STORE = 128 * 2**20
ENV_STEPS = 6000
TASK = ["--preset", "smoke", "--task", "tests.tiny:make", "--device", "cpu", "--env-steps", str(ENV_STEPS)]
TASK += ["--environment.action-repeat", "2", "--environment.time-limit", "24"]


@pytest.fixture
def cluster(patient_ray: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that takes learner and replay, and no actors."""
    monkeypatch.setenv("TINY_STEP_SECONDS", "0.003")  # of the nodes' processes: no run ends before a node is gone
    labels = {"dreamfleet_learner": 1, "dreamfleet_replay": 1}
    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 4, "object_store_memory": STORE, "include_dashboard": False, "resources": labels},
    )
    yield made
    made.shutdown()
    assert not ray.is_initialized()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Holds the replay, and what Ray's head knows."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def recoverable(patient_ray: None, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head for the learner alone, whose control store (GCS) keeps what it knows in Redis."""
    monkeypatch.setenv("TINY_STEP_SECONDS", "0.01")  # of the nodes' processes
    head = {"num_cpus": 2, "object_store_memory": STORE, "include_dashboard": False}
    with monkeypatch.context() as only_the_head:
        only_the_head.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{redis.port}")
        made = Cluster(initialize_head=True, head_node_args={**head, "resources": {"dreamfleet_learner": 1}})
    yield made
    made.shutdown()


def a_collector() -> psutil.Process:
    """The process of a collector on one of the cluster's nodes."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::Collector"):
                return process
    raise AssertionError("there is no collector")


def actor_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=4, object_store_memory=STORE, resources={"dreamfleet_actor": 1})


def replay_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=STORE, resources={"dreamfleet_replay": 1})


def test_actors_wait_for_a_node_lose_it_and_go_on_when_another_joins(cluster: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    args = [*TASK, "--task", "tests.system.faulty:slow", "--ray-address", cluster.address, "--ray-placement", "labels"]
    with Training(folder, args, tmp_path / "output") as training:
        training.until(lambda: "collector 0 waits for a node with room for it" in training.text)
        first = actor_node(cluster)
        training.until(lambda: training.stored() >= 1000)
        cluster.remove_node(first, allow_graceful=False)
        training.until(lambda: "collector 0 died" in training.text)
        actor_node(cluster)
        assert training.end() == 0, training.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    assert ENV_STEPS - 4 < summary["env_steps"] <= ENV_STEPS
    assert summary["role_restarts"]["collector"] >= 1
    assert "learner" not in summary["role_restarts"]


def test_a_cluster_loses_actors_then_a_shard_then_its_heads_memory_and_no_rows(
    recoverable: Any, redis: RedisServer, tmp_path: Path
) -> None:
    cluster, folder = recoverable, tmp_path / "run"
    actors, replay = actor_node(cluster), replay_node(cluster)
    args = [*TASK, "--task", "tests.system.faulty:slow", "--actors", "2", "--ray-address", cluster.address]
    args += ["--eval-every", "2000", "--ray-placement", "labels", "--replay-store", "redis", "--redis-url", redis.url]
    with Training(folder, args, tmp_path / "output") as training:

        def goes_on() -> None:
            """Both sides get on: steps are stored and updates done that nobody had begun before."""
            lines = RunFolder(folder).metrics()
            steps, updates = training.stored() + 300, max((line["updates"] for line in lines), default=0) + 15
            training.until(lambda: training.stored() >= steps and RunFolder(folder).metrics()[-1]["updates"] >= updates)

        goes_on()
        cluster.remove_node(actors, allow_graceful=False)
        training.until(lambda: "collector 0 died" in training.text and "collector 1 died" in training.text)
        actor_node(cluster)
        goes_on()
        cluster.remove_node(replay, allow_graceful=False)
        replay_node(cluster)
        goes_on()
        cluster.head_node.kill_gcs_server()
        cluster.head_node.start_gcs_server()
        goes_on()
        deaths = training.text.count(" died and starts again")
        a_collector().kill()
        training.until(lambda: training.text.count(" died and starts again") > deaths)
        goes_on()
        assert training.end() == 0, training.text
    summary = RunFolder(folder).summary()
    assert summary is not None
    assert summary["finished"]
    prefix = RunFolder(folder).load_config().redis_prefix
    chunks = chunks_in(RedisStore(redis.url, "", f"dreamfleet:{prefix}:0:", action_size=1))
    assert_whole(chunks)
    assert sum(chunk.rows.env_steps(2) for chunk in chunks) == summary["env_steps"]
    assert "are lost" not in training.text
    assert summary["role_restarts"]["collector"] >= 3
    assert "learner" not in summary["role_restarts"]
