"""The named starting points: `paper`, `dreamer_arxiv`, `small`, `smoke`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from common.config import (
    ActingConfig,
    Config,
    DreamerConfig,
    EnvironmentConfig,
    IdmConfig,
    PlanetConfig,
    ReplayConfig,
    TrainingConfig,
    WorldModelConfig,
)


def paper() -> Config:
    """The released Dreamer's sizes and schedule (`algorithms.md` section 2); wants a GPU."""
    return Config(preset="paper")


def dreamer_arxiv() -> Config:
    """The arXiv v1 text's appendix B, where it differs from the released code."""
    return Config(
        preset="dreamer_arxiv",
        horizon=20,
        acting=ActingConfig(train_action="mode"),
        replay=ReplayConfig(prefill=5 * 1000),
        world_model=WorldModelConfig(
            reward_layers=3, reward_units=300, discount_units=300, contrastive_units=300, learning_rate=1e-3
        ),
        dreamer=DreamerConfig(
            actor_layers=3,
            units=300,
            mean_scale=0.0,
            init_std=0.0,
            min_std=0.0,
            discount_weights=False,
            value_target_every=100,
            actor_learning_rate=3e-4,
            value_learning_rate=3e-4,
        ),
    )


def small() -> Config:
    """Learns something visible in minutes on two CPU cores: smaller and faster, the same algorithm."""
    return Config(
        task="cheetah_run",
        preset="small",
        horizon=10,
        env_steps=200_000,
        actors=1,
        envs_per_actor=4,
        train_ratio=0.02,
        eval_every=20_000,
        eval_episodes=5,
        environment=EnvironmentConfig(action_repeat=4, rendering="fast"),
        replay=ReplayConfig(capacity=500_000, chunk_rows=25, prefill=5000, pretrain=100),
        training=TrainingConfig(
            batch_size=10, batch_length=20, publish_every=20, checkpoint_every=500, log_every=50, image_every=500
        ),
        world_model=WorldModelConfig(
            deter=128,
            stoch=20,
            hidden=128,
            depth=8,
            reward_units=128,
            discount_units=128,
            contrastive_units=128,
            learning_rate=1e-3,
        ),
        dreamer=DreamerConfig(
            actor_layers=2,
            value_layers=2,
            units=128,
            init_std=1.0,
            actor_learning_rate=3e-4,
            value_learning_rate=3e-4,
        ),
        idm=IdmConfig(evaluator_units=128, evaluator_learning_rate=3e-4),
        planet=PlanetConfig(horizon=8, candidates=100, iterations=4, top=10),
    )


def smoke() -> Config:
    """Seconds from end to end; exercises every part and learns nothing."""
    return Config(
        task="cartpole_balance",
        preset="smoke",
        horizon=5,
        env_steps=1200,
        actors=1,
        envs_per_actor=2,
        train_ratio=0.05,
        eval_every=400,
        eval_episodes=1,
        final_eval_episodes=2,
        environment=EnvironmentConfig(action_repeat=4, time_limit=100, rendering="fast"),
        replay=ReplayConfig(capacity=10_000, chunk_rows=10, prefill=400, pretrain=5),
        training=TrainingConfig(
            batch_size=4, batch_length=8, publish_every=5, checkpoint_every=20, log_every=5, image_every=20
        ),
        world_model=WorldModelConfig(
            deter=32,
            stoch=8,
            hidden=32,
            depth=4,
            reward_units=32,
            discount_units=32,
            contrastive_units=32,
            learning_rate=1e-3,
        ),
        dreamer=DreamerConfig(
            actor_layers=2, value_layers=2, units=32, init_std=1.0, actor_learning_rate=3e-4, value_learning_rate=3e-4
        ),
        idm=IdmConfig(overshoot=3, evaluator_units=32, evaluator_learning_rate=3e-4),
        planet=PlanetConfig(horizon=4, candidates=32, iterations=2, top=4),
    )


def adapted(config: Config) -> Config:
    """A preset with what its algorithm and its replay store ask for.

    BIRD keeps the newest 100,000 environment steps (100 episodes). On Redis a window costs whole compressed chunks:
    small ones are sampled a fifth faster, and nearly all that compression gains is there at 16 rows.
    """
    replay = config.replay
    if config.algorithm == "bird":
        replay = dataclasses.replace(replay, capacity=min(replay.capacity, 100_000))
    if config.replay_store == "redis":
        replay = dataclasses.replace(replay, chunk_rows=min(replay.chunk_rows, 16))
    return dataclasses.replace(config, replay=replay)


PRESETS: dict[str, Callable[[], Config]] = {
    "paper": paper,
    "dreamer_arxiv": dreamer_arxiv,
    "small": small,
    "smoke": smoke,
}
