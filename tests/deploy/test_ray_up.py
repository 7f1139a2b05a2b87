"""The files for `ray up`: Ray takes them, and what they promise is in them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.runtimes.ray_runtime import LABELS
from cluster.settings import parse_train

ROOT = Path(__file__).parents[2]
CLOUDS = ["aws", "gcp"]
PROVIDERS = [*CLOUDS, "onprem"]


def written(provider: str) -> Any:
    return yaml.safe_load((ROOT / "deploy" / "ray" / f"{provider}.yaml").read_text())


def commands(config: dict[str, Any], node: str) -> str:
    return "\n".join(config[f"{node}_start_ray_commands"])


def labels_of_ray_start(config: dict[str, Any], node: str) -> dict[str, int]:
    """What `--resources` says on these nodes, after the shell has taken its quotes away."""
    for word in shlex.split(commands(config, node)):
        if word.startswith("--resources="):
            return dict(json.loads(word.removeprefix("--resources=")))
    return {}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_ray_takes_the_file(provider: str) -> None:
    validate_config(prepare_config(written(provider)))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_ray_refuses_it_with_a_key_that_does_not_exist(provider: str) -> None:
    """The validation above is one that can fail."""
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(prepare_config({**written(provider), "no_such_key": 1}))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_node_gets_the_token_the_wheel_and_the_word_that_the_token_is_asked_for(provider: str) -> None:
    config = written(provider)
    mounts = config["file_mounts"]
    assert mounts["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert {"dist/", "deploy/", "requirements.lock"} <= set(mounts.values())
    assert any(command.startswith("~/dreamfleet/deploy/ray/install.sh") for command in config["setup_commands"])
    assert "deploy/ray/environment.sh" in (ROOT / "deploy/ray/install.sh").read_text()
    assert re.search(r"^export RAY_AUTH_MODE=token$", (ROOT / "deploy/ray/environment.sh").read_text(), re.MULTILINE)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_the_files_mention_in_the_repository_is_there(provider: str) -> None:
    config = written(provider)
    text = (ROOT / "deploy" / "ray" / f"{provider}.yaml").read_text()
    for path in re.findall(r"~/dreamfleet/(deploy/[\w/.]+)", text):
        assert (ROOT / path).exists(), path
    for local in config["file_mounts"].values():
        assert local.startswith(("~", "dist/")) or (ROOT / local).exists(), local


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_command_that_the_file_recommends_is_one_that_dreamfleet_takes(provider: str) -> None:
    """`ray exec` hands what is between the quotes to a shell, so a line that goes on must say so."""
    text = (ROOT / "deploy" / "ray" / f"{provider}.yaml").read_text()
    quoted = re.search(r"ray exec [^']*'([^']*)'", re.sub(r"^#( {3})?", "", text, flags=re.MULTILINE))
    assert quoted is not None
    (command,) = quoted[1].replace("\\\n", " ").splitlines()
    words = shlex.split(command.replace("$(cat ~/dreamfleet/redis/url)", "redis://dreamfleet@10.0.0.1:6380"))
    assert words[:2] == ["dreamfleet", "train"]
    settings = parse_train(words[2:]).settings
    assert (settings.ray_placement, settings.device, settings.replay_store) == ("labels", "cuda", "redis")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_secret_is_on_a_command_line(provider: str) -> None:
    for command in re.findall(r"^.*$", (ROOT / "deploy" / "ray" / f"{provider}.yaml").read_text(), re.MULTILINE):
        assert not re.search(r"RAY_AUTH_TOKEN=|--redis-password[ =]|redis://[^@\s]*:[^@\s]*@", command), command


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_head_keeps_its_state_in_redis_and_shows_its_dashboard_to_itself_alone(provider: str) -> None:
    head = commands(written(provider), "head")
    assert head.index("redis/on_head.sh") < head.index(". ~/dreamfleet/redis/ray.env") < head.index("ray start --head")
    assert "--dashboard-host=127.0.0.1" in head


@pytest.mark.parametrize("provider", CLOUDS)
def test_actors_have_nodes_of_their_own_and_the_gpu_is_for_learner_and_shards(provider: str) -> None:
    types = prepare_config(written(provider))["available_node_types"]
    with_gpu = {name for name, node in types.items() if node["resources"].get("GPU")}
    offers = {label: {name for name, node in types.items() if label in node["resources"]} for label in LABELS.values()}
    assert with_gpu == {"learner"}
    assert offers == {
        "dreamfleet_learner": {"learner"},
        "dreamfleet_replay": {"learner"},
        "dreamfleet_actor": {"actor"},
    }
    assert types["head"]["resources"]["CPU"] == 0
    assert types["actor"]["min_workers"] < types["actor"]["max_workers"]
    assert sum(node["max_workers"] for node in types.values()) <= written(provider)["max_workers"]


def test_on_premises_the_head_is_the_learners_machine_and_all_others_the_actors() -> None:
    config = written("onprem")
    assert labels_of_ray_start(config, "head") == {"dreamfleet_learner": 1, "dreamfleet_replay": 1}
    assert labels_of_ray_start(config, "worker") == {"dreamfleet_actor": 1}
    assert "RAY_enable_autoscaler_v2=0 ray start --head" in commands(config, "head")
    assert set(LABELS.values()) == {"dreamfleet_learner", "dreamfleet_replay", "dreamfleet_actor"}
