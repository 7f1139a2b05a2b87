"""Where roles are put on nodes with GPUs, and which of these they see."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.runtimes.ray_runtime import connect, role_options, start_actor
from cluster.runtimes.roles import Setting
from common.presets import PRESETS

pytestmark = pytest.mark.slow

KINDS = ("learner", "replay", "collector", "evaluator")
STORE = 128 * 2**20


class Probe:
    """In a role's place: tells where it is and what it sees."""

    def look(self) -> tuple[str, str | None]:
        """The node, and the GPUs that CUDA would show."""
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """A node for the learner and one for actors; both say that they have a GPU."""
    node = {"num_cpus": 8, "num_gpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    resources = {"dreamfleet_learner": 1, "dreamfleet_replay": 1}
    made: Any = Cluster(initialize_head=True, head_node_args={**node, "resources": resources})
    try:
        other = made.add_node(**{**node, "resources": {"dreamfleet_actor": 1}})
        connect(made.address, roles=1)
        yield made.head_node.node_id, other.node_id
    finally:
        ray.shutdown()
        made.shutdown()


def test_only_the_learner_sees_a_gpu_and_actors_stay_off_its_node(nodes: tuple[str, str], tmp_path: Path) -> None:
    config = PRESETS["smoke"]()
    config = type(config)(**{**vars(config), "ray_placement": "labels"})
    setting = Setting(config, action_size=6, gl="auto", replay_folder=tmp_path, device="cuda")
    made = {kind: start_actor(kind, Probe, **role_options(setting, kind)) for kind in KINDS}
    seen = {kind: ray.get(actor.call.remote("look"), timeout=180) for kind, actor in made.items()}
    learners, actors = nodes
    assert seen == {
        "learner": (learners, "0"),
        "replay": (learners, ""),
        "collector": (actors, ""),
        "evaluator": (actors, ""),
    }
