"""Dreamer's ablation without a value head (Dreamer, eq. 4, figures 4 and 7)."""

from __future__ import annotations

import torch
from torch import Tensor

from common.config import Config
from learner.batch import Batch
from learner.behaviors.actor import Actor
from learner.behaviors.behavior import Behavior, ParameterGroup
from learner.behaviors.dreamer import dream_noise_shapes, imagine
from learner.returns import horizon_return
from learner.world_model import WorldModel
from learner.world_model.state import State


class NoValue(Behavior):
    """Dreamer's ablation without a value head (Hafner et al. 2020, eq. 4): the
    actor maximises the rewards inside the horizon and sees nothing past it.

    Actor: −mean over τ = 1 … H and all starts of V_R(τ) = Σ_{n=τ..H} r_n. `no_value.discounted`, the released code's
    form, discounts r_n by the γ between τ and n.
    """

    acting: Actor

    def __init__(self, config: Config, feature_size: int, action_size: int) -> None:
        super().__init__(config, feature_size, action_size)
        self.discounted = config.no_value.discounted
        self.learning_rate = config.dreamer.actor_learning_rate
        self.horizon = config.horizon
        self.noise_sizes = (config.world_model.stoch, action_size)

    @staticmethod
    def make_acting(config: Config, feature_size: int, action_size: int) -> Actor:
        """Dreamer's actor network."""
        return Actor(feature_size, action_size, config.dreamer, config.acting)

    def groups(self) -> dict[str, ParameterGroup]:
        """`actor` alone."""
        return {"actor": ParameterGroup(self.acting, self.learning_rate)}

    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """As Dreamer's."""
        return dream_noise_shapes(self.horizon, starts, *self.noise_sizes)

    def losses(
        self, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The `actor` loss from H imagined steps of all starts."""
        dream = imagine(world_model, self.acting, world_model.starts(posterior), noise)
        target = horizon_return(dream.reward, dream.discount if self.discounted else torch.ones_like(dream.discount))
        actor_loss = -target.mean()
        metrics = {
            "actor_loss": actor_loss.detach(),
            "imagined_return": target.detach().mean(),
            "imagined_reward": dream.reward.detach().mean(),
            "imagined_action_size": dream.action.detach().abs().mean(),
        }
        return {"actor": actor_loss}, metrics
