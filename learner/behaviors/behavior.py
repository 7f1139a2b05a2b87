"""The interface between the learner, the policy and a behaviour."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from common.config import Config
from learner.world_model import WorldModel
from learner.world_model.state import State


class ParameterGroup(NamedTuple):
    """Modules that one loss trains, with their optimiser's step size."""

    module: nn.Module
    learning_rate: float


class Acting(nn.Module):
    """The part of a behaviour that the policy carries to the actors."""

    @abstractmethod
    def noise_shape(self, environments: int, training: bool) -> tuple[int, ...]:
        """Shape of the standard normal noise that `act` wants."""

    @abstractmethod
    def act(self, feature: Tensor, noise: Tensor, training: bool) -> Tensor:
        """Features (E, F) → actions (E, A) in ±1, before exploration noise."""


class Behavior(nn.Module):
    """Learns to act from imagined trajectories; never changes the world model."""

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
    def noise_shapes(self, starts: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal noise that one update wants, by name, for N starts."""

    @abstractmethod
    def losses(
        self, world_model: WorldModel, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each group by name, and detached metrics.

        Args:
            world_model: what to dream in.
            posterior: the batch's posterior states (L, B, …).
            noise: one tensor for each of `noise_shapes`.
        """

    def after_update(self, updates: int) -> None:
        """Called when `updates` updates are done, for slow copies and the like."""
