"""The interface between the learner, the policy and a behaviour."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from common.config import Config
from learner.batch import Batch
from learner.networks import ScalarHead
from learner.ranks import ALONE, Ranks
from learner.world_model import WorldModel
from learner.world_model.model import ModelLoss
from learner.world_model.rssm import RSSM
from learner.world_model.state import State


class ParameterGroup(NamedTuple):
    """Modules that one loss trains, with their optimiser's step size."""

    module: nn.Module
    learning_rate: float


class Foresight(NamedTuple):
    """What an actor has of the world model, to look ahead with."""

    rssm: RSSM
    reward: ScalarHead


class Acting(nn.Module):
    """The part of a behaviour that the policy carries to the actors."""

    @abstractmethod
    def noise_shapes(self, environments: int, training: bool) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal noise that `act` wants, by name."""

    @abstractmethod
    def act(self, model: Foresight, latent: State, noise: dict[str, Tensor], training: bool) -> Tensor:
        """Posterior states (E, …) → actions (E, A) in ±1, before exploration noise."""


class Behavior(nn.Module):
    """Learns to act from imagined trajectories; never changes the world model."""

    ranks: Ranks = ALONE
    looks_at_images = False  # those that the world model draws

    def __init__(self, config: Config, feature_size: int, action_size: int) -> None:
        super().__init__()
        self.acting = self.make_acting(config, feature_size, action_size)

    @staticmethod
    @abstractmethod
    def make_acting(config: Config, feature_size: int, action_size: int) -> Acting:
        """A fresh acting part; the policy on an actor builds its own and loads weights into it."""

    @abstractmethod
    def groups(self) -> dict[str, ParameterGroup]:
        """What is trained, by the name of its loss."""

    @abstractmethod
    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal noise that one update wants, by name: B sequences of L rows, N starts."""

    @abstractmethod
    def losses(
        self, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each group by name, and detached metrics.

        Args:
            world_model: what to dream in.
            batch: B sequences of L rows.
            posterior: their posterior states (L, B, …).
            noise: one tensor for each of `noise_shapes`.
        """

    def model_loss(
        self, world_model: WorldModel, model: ModelLoss, noise: dict[str, Tensor]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What the behaviour asks of the world model beside explaining the data: a loss that joins its own, or None."""
        return None, {}

    def after_update(self, updates: int) -> None:
        """Called when `updates` updates are done, for slow copies and the like."""
