"""An agent that learns: pixels in, four fifths of the best possible return out; without the actor's gradient, no."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cluster.main import main
from common.config import Config, EnvironmentConfig, PlanetConfig, ReplayConfig
from common.config_io import to_yaml
from common.presets import small
from common.run_folder import RunFolder
from learner.behaviors.dreamer import Dreamer
from tests.tiny import BEST_RETURN, EPISODE_STEPS, RANDOM_RETURN

LEARNT = 0.8 * BEST_RETURN


def config(seed: int, algorithm: str = "dreamer") -> Config:
    """`small`, smaller still: minutes on one core."""
    base = small()
    return dataclasses.replace(
        base,
        task="tests.tiny:make",
        algorithm=algorithm,
        seed=seed,
        runtime="inline",
        device="cpu",
        replay_store="memory",
        horizon=8,
        env_steps=8500,
        train_ratio=0.2,
        eval_every=0,
        final_eval_episodes=40,
        environment=EnvironmentConfig(action_repeat=1, time_limit=EPISODE_STEPS),
        replay=ReplayConfig(capacity=100_000, chunk_rows=10, prefill=1000, pretrain=150),
        training=dataclasses.replace(base.training, batch_size=12, batch_length=10, learner_threads=1),
        world_model=dataclasses.replace(
            base.world_model,
            deter=64,
            stoch=16,
            hidden=64,
            depth=4,
            reward_units=64,
            free_nats=1.0,
            learning_rate=2e-3,
        ),
        dreamer=dataclasses.replace(
            base.dreamer,
            units=64,
            gamma=0.95,
            mean_scale=1.0,
            init_std=0.5,
            actor_learning_rate=1e-3,
            value_learning_rate=1e-3,
        ),
        soft_bird=dataclasses.replace(base.soft_bird, alpha=0.01, entropy_samples=20),
        idm=dataclasses.replace(base.idm, overshoot=5, evaluator_units=64, evaluator_learning_rate=1e-3),
        planet=PlanetConfig(horizon=6, candidates=60, iterations=3, top=6),
    )


def last_return(seed: int, folder: Path, algorithm: str = "dreamer") -> float:
    """Trains by the command line; the mean return of the final evaluation."""
    file = folder / "learning.yaml"
    file.write_text(to_yaml(config(seed, algorithm)))
    assert main(["train", "--config", str(file), "--run-dir", str(folder / "run")]) == 0
    summary = RunFolder(folder / "run").summary()
    assert summary is not None
    assert summary["finished"]
    assert summary["random_return"] < LEARNT
    return float(summary["last_return"])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["dreamer", "bird", "soft_bird", "idm", "planet"])
def test_it_learns_from_pixels(algorithm: str, tmp_path: Path) -> None:
    assert last_return(0, tmp_path, algorithm) >= LEARNT


@pytest.mark.slow
def test_it_does_not_learn_without_the_actors_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run with the actor's loss cut off: what the test above passes by is the actor's learning."""
    losses = Dreamer.losses

    def cut(*args: object) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        found, metrics = losses(*args)  # type: ignore[arg-type]  # passed on as they came
        zero = torch.stack([parameter.sum() for parameter in args[0].acting.parameters()]).sum() * 0.0  # type: ignore[attr-defined]  # a Dreamer
        return {**found, "actor": zero}, metrics

    monkeypatch.setattr(Dreamer, "losses", cut)
    measured = last_return(0, tmp_path)
    assert measured < LEARNT
    assert measured > 0.2 * RANDOM_RETURN, "it acted, only badly"
