"""Dreamer: actor and value learnt by gradients through imagined trajectories (Dreamer section 3)."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from common.config import Config
from learner.batch import Batch
from learner.behaviors.actor import Actor
from learner.behaviors.behavior import Behavior, ParameterGroup
from learner.behaviors.dreaming import dream
from learner.distributions import unit_normal_log_prob
from learner.judging import judge, judge_and_learn
from learner.networks import ScalarHead
from learner.returns import cumulative_discount, lambda_return
from learner.world_model import WorldModel
from learner.world_model.state import State


class Dream(NamedTuple):
    """Imagined trajectories, H steps from each of N starts, which are no part of them.

    Attributes:
        states: (H, N, …).
        feature: (H, N, F) of the states.
        action: (H, N, A), what led to each state.
        reward: (H, N), expected at each state.
        discount: (H, N), γ_τ.
    """

    states: State
    feature: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor


class Dreamer(Behavior):
    """Dreamer (Hafner et al. 2020): an actor learns by gradients through imagined
    trajectories, and a value head looks past their horizon.

    Actor: −mean(D_τ · R_τ); value: −mean(D_τ · ln N(R_τ; v_τ, 1)); over τ = 1 … H−1 and all starts (eq. 6–8).
    `starts`, `rewards` and `weights` are where its descendants differ.
    """

    acting: Actor

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

    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """`prior` (H, N, S) for the imagined states, `action` (H, N, A) for the policy's samples."""
        return dream_noise_shapes(self.horizon, starts, *self.noise_sizes)

    def losses(
        self, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`actor` and `value` losses from H imagined steps of all starts."""
        dream = imagine(world_model, self.acting, self.starts(world_model.starts(posterior), noise), noise)
        reward, metrics = self.rewards(dream, noise)  # (H, N)
        if self.value_target is None:
            seen, value = judge_and_learn(self.value, dream.feature)  # (H, N), (H − 1, N)
        else:
            seen, value = judge(self.value_target, dream.feature), self.value(dream.feature[:-1].detach())
        target = lambda_return(reward, seen, dream.discount, self.settings.return_lambda)
        on_actor, on_value, weight_metrics = self.weights(dream)  # (H − 1, N), as `target`
        actor_loss = -(on_actor * target).mean()
        value_loss = -(on_value * unit_normal_log_prob(value, target.detach())).mean()
        metrics |= weight_metrics | {
            "actor_loss": actor_loss.detach(),
            "value_loss": value_loss.detach(),
            "imagined_return": target.detach().mean(),
            "imagined_reward": dream.reward.detach().mean(),
            "imagined_action_size": dream.action.detach().abs().mean(),
        }
        return {"actor": actor_loss, "value": value_loss}, metrics

    def starts(self, starts: State, noise: dict[str, Tensor]) -> State:
        """Where dreams begin, given the batch's N detached posterior states."""
        return starts

    def rewards(self, dream: Dream, noise: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The reward (H, N) that returns are made of, and metrics."""
        return dream.reward, {}

    def weights(self, dream: Dream) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Detached weights (H − 1, N) of each term in the actor's and in the value's loss, and metrics; here D_τ."""
        discount = dream.discount
        weight = cumulative_discount(discount) if self.settings.discount_weights else torch.ones_like(discount[:-1])
        return weight, weight, {}

    def after_update(self, updates: int) -> None:
        """Copies the value head into its target when that is due."""
        if self.value_target is not None and updates % self.settings.value_target_every == 0:
            self.value_target.load_state_dict(self.value.state_dict())


def dream_noise_shapes(horizon: int, starts: int, stoch: int, action: int) -> dict[str, tuple[int, ...]]:
    """The noise of `imagine`: `prior` (H, N, S) of the states, `action` (H, N, A) of the policy's samples."""
    return {"prior": (horizon, starts, stoch), "action": (horizon, starts, action)}


def imagine(world_model: WorldModel, actor: Actor, start: State, noise: dict[str, Tensor]) -> Dream:
    """Dreams H steps ahead of the states `start` (N, …) by the actor's own choices."""
    states, feature, action = dream(world_model.rssm, actor, start, noise["prior"], noise["action"])
    return Dream(states, feature, action, judge(world_model.reward, feature), world_model.discount(feature))
