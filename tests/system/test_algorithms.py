"""Every algorithm trains from the command line with every objective that it can use, and logs what is its own."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.main import main
from common.config import Config, EnvironmentConfig, IdmConfig, ReplayConfig
from common.config_io import to_yaml
from common.presets import adapted, smoke
from common.run_folder import RunFolder
from learner.behaviors import BEHAVIORS
from learner.policy import Policy
from learner.world_model.objectives import OBJECTIVES
from tests.tiny import EPISODE_STEPS, make

OWN_METRICS: dict[str, set[str]] = {
    "dreamer": {"actor_loss", "value_loss"},
    "no_value": {"actor_loss"},
    "bird": {"actor_loss", "value_loss", "confidence_weight_std", "policy_entropy"},
    "soft_bird": {"actor_loss", "value_loss", "policy_entropy"},
    "idm": {
        "actor_loss",
        "value_loss",
        "decoding_constraint",
        "evaluator_loss",
        "evaluator_accuracy",
        "reliability_weight_std",
    },
    "planet": set(),
    "random_shooting": set(),
}
OF_ANY = set().union(*OWN_METRICS.values())
LEFT_OUT: dict[str, set[str]] = {
    "without_evaluator": {"evaluator_loss", "evaluator_accuracy", "reliability_weight_std"},
    "without_derived_memory": set(),
    "without_both": {"decoding_constraint"},
}


def config(**changes: Any) -> Config:
    """The smoke preset on the suite's own task: a second or two, a handful of updates."""
    base = dataclasses.replace(
        smoke(),
        task="tests.tiny:make",
        runtime="inline",
        device="cpu",
        replay_store="memory",
        env_steps=300,
        eval_every=0,
        final_eval_episodes=1,
        environment=EnvironmentConfig(action_repeat=1, time_limit=EPISODE_STEPS),
        replay=ReplayConfig(capacity=10_000, chunk_rows=10, prefill=150, pretrain=2),
        **changes,
    )
    return adapted(base)


def train(config: Config, folder: Path) -> set[str]:
    """Trains by the command line; the names of what the learner logged."""
    (folder / "config.yaml").write_text(to_yaml(config))
    assert main(["train", "--config", str(folder / "config.yaml"), "--run-dir", str(folder / "run")]) == 0
    run = RunFolder(folder / "run")
    summary = run.summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["updates"] > 5
    assert [record["weights_version"] > 0 for record in run.evaluations()] == [False, True, True]
    return set().union(*run.metrics())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "objective"),
    [pair for pair in itertools.product(BEHAVIORS, OBJECTIVES) if pair[0] != "idm" or pair[1] == "reconstruction"],
)
def test_it_trains(algorithm: str, objective: str, tmp_path: Path) -> None:
    logged = train(config(algorithm=algorithm, objective=objective), tmp_path)
    assert logged & OF_ANY == OWN_METRICS[algorithm]
    assert ("image_loss" in logged) is (objective == "reconstruction")
    assert ("contrastive_loss" in logged) is (objective == "contrastive")
    image = make(0).reset().observation
    first, _ = Policy.load(tmp_path / "run").act(image)
    again, _ = Policy.load(tmp_path / "run").act(image)
    np.testing.assert_array_equal(first, again)


@pytest.mark.slow
@pytest.mark.parametrize("ablation", LEFT_OUT)
def test_an_ablation_of_idm_trains_without_what_it_leaves_out(ablation: str, tmp_path: Path) -> None:
    idm = dataclasses.replace(smoke().idm, ablation=ablation)
    assert train(config(algorithm="idm", idm=idm), tmp_path) & OF_ANY == OWN_METRICS["idm"] - LEFT_OUT[ablation]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["contrastive", "reward_only"])
def test_idm_does_without_pictures_once_nothing_compares_them(objective: str, tmp_path: Path) -> None:
    idm = dataclasses.replace(smoke().idm, rho=0.0)
    logged = train(config(algorithm="idm", objective=objective, idm=idm), tmp_path)
    assert logged & OF_ANY == OWN_METRICS["idm"] - {"decoding_constraint"}


@pytest.mark.slow
def test_a_doubled_batch_trains(tmp_path: Path) -> None:
    base = smoke()
    train(config(dreamer=dataclasses.replace(base.dreamer, doubled_batch=True)), tmp_path)


def test_every_behaviour_says_what_it_logs() -> None:
    assert OWN_METRICS.keys() == BEHAVIORS.keys()
    assert IdmConfig().ablation not in LEFT_OUT
