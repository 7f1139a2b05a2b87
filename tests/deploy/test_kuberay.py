"""The manifests for Kubernetes: what the run needs from them, and that they speak of the same things."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import ray
import yaml

from cluster.runtimes.ray_runtime import LABELS
from cluster.settings import parse_train

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"


def manifests() -> dict[str, Any]:
    """Every manifest by its kind."""
    files = ("redis.yaml", "rayjob.yaml")
    return {made["kind"]: made for file in files for made in yaml.safe_load_all((KUBERAY / file).read_text())}


def cluster() -> Any:
    return manifests()["RayJob"]["spec"]["rayClusterSpec"]


def groups() -> dict[str, Any]:
    return {group["groupName"]: group for group in cluster()["workerGroupSpecs"]}


def labels(group: dict[str, Any]) -> dict[str, int]:
    """KubeRay puts the parameter behind `ray start --resources=` in a shell's command line."""
    (word,) = shlex.split(group["rayStartParams"]["resources"])
    return dict(json.loads(word))


def resources(group: dict[str, Any]) -> dict[str, Any]:
    return dict(group["template"]["spec"]["containers"][0]["resources"]["limits"])


def test_the_run_that_the_job_starts_is_one_that_dreamfleet_takes() -> None:
    command = shlex.split(manifests()["RayJob"]["spec"]["entrypoint"])
    assert command[:2] == ["dreamfleet", "train"]
    settings = parse_train(command[2:]).settings
    assert (settings.ray_address, settings.ray_placement, settings.device) == ("auto", "labels", "cuda")
    assert settings.replay_store == "redis"


def test_rays_version_is_the_one_that_the_image_installs() -> None:
    assert cluster()["rayVersion"] == ray.__version__


def test_actors_have_pods_of_their_own_and_the_gpu_is_for_learner_and_shards() -> None:
    assert labels(groups()["learner"]) == {"dreamfleet_learner": 1, "dreamfleet_replay": 1}
    assert labels(groups()["actor"]) == {"dreamfleet_actor": 1}
    assert {label for group in groups().values() for label in labels(group)} == set(LABELS.values())
    assert "nvidia.com/gpu" in resources(groups()["learner"])
    assert "nvidia.com/gpu" not in resources(groups()["actor"])
    assert cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert groups()["actor"]["minReplicas"] < groups()["actor"]["maxReplicas"]


def test_rays_ports_ask_for_a_token_and_its_head_keeps_its_state_in_redis() -> None:
    assert cluster()["authOptions"] == {"mode": "token"}
    redis = cluster()["gcsFaultToleranceOptions"]
    service = manifests()["Service"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert redis == {"redisAddress": f"rediss://{service['metadata']['name']}:{ports['ray']}"}
    (head,) = cluster()["headGroupSpec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in head["env"]}
    assert set(environment) == {"RAY_REDIS_CA_CERT", "RAY_REDIS_CLIENT_CERT", "RAY_REDIS_CLIENT_KEY"}
    assert {"containerPort": 9464, "name": "metrics"} in head["ports"]


def test_every_volume_secret_and_claim_that_is_mounted_is_made_by_something(tmp_path: Path) -> None:
    """secrets.sh runs for real against a kubectl that writes down what it is asked for."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@" >> "$0.calls"\ncat > /dev/null < /dev/null\n')
    kubectl.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run([KUBERAY / "secrets.sh"], env=environment, check=True)
    calls = (tmp_path / "kubectl.calls").read_text()
    made = {
        ("configMap", "dreamfleet-redis") if "create configmap dreamfleet-redis" in calls else None,
        ("secret", "dreamfleet-redis") if "create secret generic dreamfleet-redis" in calls else None,
        ("secret", "dreamfleet-ray-redis") if "create secret tls dreamfleet-ray-redis" in calls else None,
        ("persistentVolumeClaim", manifests()["PersistentVolumeClaim"]["metadata"]["name"]),
    }
    pods = [cluster()["headGroupSpec"], *groups().values(), manifests()["StatefulSet"]["spec"]]
    wanted = set()
    for pod in (pod["template"]["spec"] for pod in pods):
        names = {volume["name"] for volume in pod["volumes"]} | {"data"}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= names
        for volume in pod["volumes"]:
            for kind, key in (("secret", "secretName"), ("configMap", "name"), ("persistentVolumeClaim", "claimName")):
                if kind in volume:
                    wanted.add((kind, volume[kind][key]))
    assert wanted == made


def test_no_pod_is_root_and_no_secret_is_written_down() -> None:
    pods = [cluster()["headGroupSpec"], *groups().values(), manifests()["StatefulSet"]["spec"]]
    assert all(pod["template"]["spec"]["securityContext"]["runAsNonRoot"] for pod in pods)
    assert "Secret" not in manifests()
