"""What is looked into: one checkpoint of a run, and episodes it has never seen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from actors.collector import Collector
from common.checkpoint import Checkpoint
from common.config import Config
from common.errors import UserError
from common.seeding import derive_seed
from common.sequence import Chunk, Rows
from learner.foresight import draw
from learner.policy import Policy
from learner.reading import Trained, read_trained

ENVIRONMENTS_AT_ONCE = 10
_PATIENCE = 3  # times an episode's longest length, after which environments that keep failing are given up


@dataclass(frozen=True)
class Subject:
    """One checkpoint with its networks.

    Attributes:
        run: the run folder.
        config: the run's.
        checkpoint: where the parameters come from.
        trained: world model and behaviour.
    """

    run: Path
    config: Config
    checkpoint: Checkpoint
    trained: Trained

    @classmethod
    def read(cls, run: Path, config: Config, checkpoint: Checkpoint) -> Subject:
        """Builds the networks; raises UserError when parameters and configuration do not fit."""
        return cls(run, config, checkpoint, read_trained(config, checkpoint))

    @property
    def label(self) -> str:
        """Algorithm and folder."""
        return f"{self.config.algorithm} · {self.run.name}"

    @property
    def draws_images(self) -> bool:
        """Whether the objective has a decoder."""
        model = self.trained.world_model
        return draw(model, torch.zeros(1, model.rssm.feature_size)) is not None

    def drawn_by(self, gl: Literal["auto", "egl", "osmesa"]) -> Subject:
        """The same with the OpenGL backend that was found to work."""
        environment = dataclasses.replace(self.config.environment, gl=gl)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, environment=environment))

    def describe(self) -> dict[str, Any]:
        """What was looked into, as JSON values."""
        return {
            "run": str(self.run),
            "task": self.config.task,
            "algorithm": self.config.algorithm,
            "objective": self.config.objective,
            "preset": self.config.preset,
            "updates": self.checkpoint.updates,
            "env_steps": self.checkpoint.state["env_steps"],
        }

    def noise(self, seed: int, name: str, *shape: int) -> torch.Tensor:
        """Standard normal noise from a stream of its own."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "inspection", name))
        return torch.randn(shape, generator=generator)


def longest_episode(config: Config) -> int:
    """Rows of an episode that lasts until the time limit, the reset row included."""
    return 1 + -(-config.environment.time_limit // config.environment.action_repeat)


def play(subject: Subject, count: int, seed: int) -> list[Rows]:
    """Whole episodes that a checkpoint's policy plays now, with training noise: they were never in the replay.

    Args:
        subject: acts; its configuration's `gl` says what draws.
        count: how many.
        seed: of environments and policy; the same one gives the same episodes.

    Raises:
        UserError: the environments fail again and again.
    """
    config = dataclasses.replace(
        subject.config,
        seed=derive_seed(seed, "held-out"),
        replay=dataclasses.replace(subject.config.replay, chunk_rows=longest_episode(subject.config)),
    )
    episodes: list[Rows] = []
    while len(episodes) < count:
        config = dataclasses.replace(config, envs_per_actor=min(count - len(episodes), ENVIRONMENTS_AT_ONCE))
        batch = len(episodes) // ENVIRONMENTS_AT_ONCE
        policy = Policy.from_checkpoint(config, subject.checkpoint, derive_seed(seed, "held-out policy", batch))
        episodes += _play_together(config, policy, batch)
    return episodes


def _play_together(config: Config, policy: Policy, batch: int) -> list[Rows]:
    """The first whole episode of each environment."""
    kept = _Kept(config.envs_per_actor)
    collector = Collector(config, actor=0, incarnation=batch, sink=kept, policy=policy)
    try:
        collector.set_weights(1, {name: tensor.numpy() for name, tensor in policy.tensors.items()})
        one_step = config.envs_per_actor * config.environment.action_repeat
        for _ in range(_PATIENCE * longest_episode(config)):
            collector.collect(one_step)
            if all(kept.whole):
                return kept.whole
    finally:
        collector.close()
    raise UserError(f"the environments of {config.task} fail again and again: no whole episode can be played")


class _Kept:
    """A sink that keeps each environment's first whole episode."""

    def __init__(self, environments: int) -> None:
        self.whole: list[Any] = [None] * environments
        self._open: list[list[Chunk]] = [[] for _ in range(environments)]

    def insert(self, chunk: Chunk) -> None:
        """Joins a chunk to its episode."""
        index = chunk.key.environment
        parts = self._open[index]
        if parts and parts[0].key.episode != chunk.key.episode:
            parts.clear()
        parts.append(chunk)
        if chunk.is_last and self.whole[index] is None:
            self.whole[index] = Rows.concatenate([part.rows for part in parts])
        if chunk.is_last:
            parts.clear()

    def flush(self) -> int:
        """Nothing to wait for."""
        return 0
