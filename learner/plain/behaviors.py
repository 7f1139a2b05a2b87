"""The behaviours' losses, step by step.

A behaviour's own formulas (where dreams begin, what they pay, how they are weighted) are asked of it; what is written
out here is how a dream is dreamt and what is computed of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.batch import Batch
from learner.behaviors.behavior import Behavior
from learner.behaviors.bird import Bird
from learner.behaviors.dreamer import Dream, Dreamer
from learner.behaviors.entropy import policy_entropy
from learner.behaviors.idm import Idm, decoding_constraint, evaluator_loss
from learner.behaviors.no_value import NoValue
from learner.behaviors.trajectory_evaluator import real_and_overshoot
from learner.distributions import unit_normal_log_prob
from learner.networks import ScalarHead
from learner.plain.model import PlainModelLoss, decode, stack
from learner.returns import horizon_return, lambda_return
from learner.world_model import WorldModel
from learner.world_model.objectives.reconstruction import Reconstruction
from learner.world_model.state import State


def behavior_losses(
    behavior: Behavior, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
) -> dict[str, Tensor]:
    """What `Behavior.losses` computes, the losses alone."""
    if isinstance(behavior, NoValue):
        return no_value_losses(behavior, world_model, posterior, noise)
    if isinstance(behavior, Dreamer):
        return dreamer_losses(behavior, world_model, batch, posterior, noise)
    return {}


def no_value_losses(
    behavior: NoValue, world_model: WorldModel, posterior: State, noise: dict[str, Tensor]
) -> dict[str, Tensor]:
    """−mean V_R."""
    dream, _ = imagine(world_model, behavior, world_model.starts(posterior), noise)
    discount = dream.discount if behavior.discounted else torch.ones_like(dream.discount)
    return {"actor": -horizon_return(dream.reward, discount).mean()}


def dreamer_losses(
    behavior: Dreamer, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The actor's and the value's, and IDM's evaluator's."""
    head = behavior.value if behavior.value_target is None else behavior.value_target
    start = behavior.starts(world_model.starts(posterior), noise)
    dream, value = imagine(world_model, behavior, start, noise, head)
    reward, _ = behavior.rewards(dream, noise)
    target = lambda_return(reward, value, dream.discount, behavior.settings.return_lambda)  # (H − 1, N)
    on_actor, on_value, _ = behavior.weights(dream)
    actor_loss = -(on_actor * target).mean()
    predicted = behavior.value(dream.feature[:-1].detach())
    value_loss = -(on_value * unit_normal_log_prob(predicted, target.detach())).mean()
    if isinstance(behavior, Bird) and behavior.bird.entropy_weight > 0:
        policy = behavior.acting.distribution(posterior.feature.detach())  # (L, B, A)
        entropy = policy_entropy(policy, behavior.bird.entropy, noise["entropy"])
        actor_loss = actor_loss - behavior.bird.entropy_weight * entropy.mean()
    losses = {"actor": actor_loss, "value": value_loss}
    if isinstance(behavior, Idm) and behavior.evaluator is not None:
        action = batch.action.transpose(0, 1)  # (L, B, A)
        real, fake = real_and_overshoot(world_model.rssm, posterior, action, behavior.idm.overshoot, noise["overshoot"])
        losses["evaluator"] = evaluator_loss(behavior.evaluator(*real), behavior.evaluator(*fake))
    return losses


def imagine(
    world_model: WorldModel,
    behavior: Dreamer | NoValue,
    start: State,
    noise: dict[str, Tensor],
    value_head: ScalarHead | None = None,
) -> tuple[Dream, Tensor]:
    """Dreams H steps from states (N, …), asking every head at each; values (H, N) are zeros without a head."""
    state = start
    states, actions, rewards, discounts, values = [], [], [], [], []
    for noise_t, action_noise_t in zip(noise["prior"], noise["action"], strict=True):
        action = behavior.acting(state.feature.detach(), action_noise_t)
        state = world_model.rssm.prior_step(state, action, noise_t)
        feature = state.feature
        states.append(state)
        actions.append(action)
        rewards.append(world_model.reward(feature))
        discounts.append(world_model.discount(feature))
        values.append(torch.zeros_like(rewards[-1]) if value_head is None else value_head(feature))
    together = stack(states)
    reward, discount, value = (torch.stack(parts) for parts in (rewards, discounts, values))
    return Dream(together, together.feature, torch.stack(actions), reward, discount), value


def asked_of_the_model(
    behavior: Behavior, world_model: WorldModel, model: PlainModelLoss, noise: dict[str, Tensor]
) -> Tensor | None:
    """What `Behavior.model_loss` computes: IDM's decoding constraint."""
    if not isinstance(behavior, Idm) or behavior.rho == 0:
        return None
    assert model.drawn is not None
    assert isinstance(world_model.objective, Reconstruction)
    state = model.posterior.map(lambda part: part.transpose(0, 1).flatten(0, 1))  # (B · L, …)
    disturbed = state._replace(
        deter=state.deter + behavior.idm.sigma_h * noise["disturbed_deter"].flatten(0, 1),
        stoch=state.stoch + behavior.idm.sigma_n * noise["disturbed_stoch"].flatten(0, 1),
    )
    drawn = decode(world_model.objective.decoder, disturbed.feature)
    return behavior.rho * decoding_constraint(model.drawn, drawn, behavior.idm.delta)
