"""Dreamer: actor and value learnt by gradients through imagined trajectories (Dreamer section 3)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from common.config import Config
from learner.behaviors.actor import Actor
from learner.behaviors.behavior import Behavior, ParameterGroup
from learner.distributions import unit_normal_log_prob
from learner.networks import ScalarHead
from learner.returns import cumulative_discount, lambda_return
from learner.world_model import WorldModel
from learner.world_model.state import State


class Dreamer(Behavior):
    """Actor: −mean(D_τ · R_τ); value: −mean(D_τ · ln N(R_τ; v_τ, 1)); over τ = 1 … H−1 and all starts (eq. 6–8)."""

    def __init__(self, config: Config, feature_size: int, action_size: int) -> None:
        super().__init__(config, feature_size, action_size)
        self.settings = config.dreamer
        self.horizon = config.horizon
        self.noise_sizes = (config.world_model.stoch, action_size)
        self.value = ScalarHead(feature_size, self.settings.value_layers, self.settings.units)
        self.value_target = copy.deepcopy(self.value) if self.settings.value_target_every else None

    @staticmethod
    def make_acting(config: Config, feature_size: int, action_size: int) -> Actor:
        """The actor network."""
        return Actor(feature_size, action_size, config.dreamer, config.acting)

    def groups(self) -> dict[str, ParameterGroup]:
        """`actor` and `value`."""
        return {
            "actor": ParameterGroup(self.acting, self.settings.actor_learning_rate),
            "value": ParameterGroup(self.value, self.settings.value_learning_rate),
        }

    def noise_shapes(self, starts: int) -> dict[str, tuple[int, ...]]:
        """`prior` (H, N, S) for the imagined states, `action` (H, N, A) for the policy's samples."""
        stoch, action = self.noise_sizes
        return {"prior": (self.horizon, starts, stoch), "action": (self.horizon, starts, action)}

    def losses(
        self, world_model: WorldModel, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`actor` and `value` losses from H imagined steps of all starts."""
        start = world_model.starts(posterior)
        states, actions = world_model.rssm.imagine(self.acting, start, noise["prior"], noise["action"])
        feature = states.feature  # (H, N, F)
        reward = world_model.reward(feature)  # (H, N)
        discount = world_model.discount(feature)  # (H, N)
        value_head = self.value if self.value_target is None else self.value_target
        target = lambda_return(reward, value_head(feature), discount, self.settings.return_lambda)  # (H − 1, N)
        weight = cumulative_discount(discount) if self.settings.discount_weights else torch.ones_like(target)
        actor_loss = -(weight * target).mean()
        value = self.value(feature[:-1].detach())  # (H − 1, N)
        value_loss = -(weight * unit_normal_log_prob(value, target.detach())).mean()
        metrics = {
            "actor_loss": actor_loss.detach(),
            "value_loss": value_loss.detach(),
            "imagined_return": target.detach().mean(),
            "imagined_reward": reward.detach().mean(),
            "imagined_action_size": actions.detach().abs().mean(),
        }
        return {"actor": actor_loss, "value": value_loss}, metrics

    def after_update(self, updates: int) -> None:
        """Copies the value head into its target when that is due."""
        if self.value_target is not None and updates % self.settings.value_target_every == 0:
            self.value_target.load_state_dict(self.value.state_dict())
