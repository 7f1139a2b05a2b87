"""The world model's loss, step by step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from learner.batch import Batch
from learner.distributions import unit_normal_log_prob
from learner.networks import Decoder, Encoder
from learner.world_model import WorldModel
from learner.world_model.kl import kl_loss
from learner.world_model.objectives.reconstruction import Reconstruction
from learner.world_model.rssm import RSSM
from learner.world_model.state import State


class PlainModelLoss(NamedTuple):
    """The loss, its posterior states (L, B, …), and the images (B · L, 3, 64, 64) drawn of them, if any are."""

    loss: Tensor
    posterior: State
    drawn: Tensor | None


def model_loss(world_model: WorldModel, batch: Batch, noise: Tensor) -> PlainModelLoss:
    """What `WorldModel.loss` computes: −E[ln p(o|s)] − E[ln p(r|s)] + β · max(E[KL], free nats) (Dreamer, eq. 10)."""
    config = world_model.config
    batch_size, length = batch.reward.shape
    image = (
        batch.image.flatten(0, 1).permute(0, 3, 1, 2).contiguous().to(world_model.rssm.cell.weight_hh.dtype) / 255.0
        - 0.5
    )
    flat_embed = encode(world_model.encoder, image)  # (B · L, E)
    embed = flat_embed.view(batch_size, length, -1).transpose(0, 1)  # (L, B, E)
    action, is_first = batch.action.transpose(0, 1), batch.is_first.transpose(0, 1)
    posterior, prior = observe(world_model.rssm, embed, action, is_first, noise)
    feature = posterior.feature.transpose(0, 1)  # (B, L, F)
    drawn: Tensor | None = None
    if isinstance(world_model.objective, Reconstruction):
        drawn = decode(world_model.objective.decoder, feature.flatten(0, 1))
        loss = -unit_normal_log_prob(drawn, image).sum((1, 2, 3)).mean()
    else:
        loss = world_model.objective.loss(feature.flatten(0, 1), flat_embed, image).loss
    loss = loss - unit_normal_log_prob(world_model.reward(feature), batch.reward).mean()
    loss = loss + config.kl_scale * kl_loss(posterior, prior, config.free_nats, config.kl_clip)
    if world_model.discount_head is not None:
        target = world_model.gamma * batch.discount
        discount_loss = functional.binary_cross_entropy_with_logits(world_model.discount_head(feature), target)
        loss = loss + config.discount_scale * discount_loss
    return PlainModelLoss(loss, posterior, drawn)


def encode(encoder: Encoder, image: Tensor) -> Tensor:
    """Images (N, 3, 64, 64) → embeddings (N, E), one convolution after another."""
    x = image
    for layer in encoder.layers:
        x = functional.relu(layer(x))
    return x.flatten(1)


def decode(decoder: Decoder, feature: Tensor) -> Tensor:
    """Features (N, F) → image means (N, 3, 64, 64), one transposed convolution after another."""
    x = functional.relu(decoder.first(decoder.dense(feature)[:, :, None, None]))
    for layer in decoder.layers[:-1]:
        x = functional.relu(layer(x))
    return decoder.layers[-1](x)


def observe(rssm: RSSM, embed: Tensor, action: Tensor, is_first: Tensor, noise: Tensor) -> tuple[State, State]:
    """What `RSSM.observe` computes: one prior and one posterior step for each row."""
    state, posteriors, priors = rssm.initial(embed.shape[1]), [], []
    for embed_t, action_t, is_first_t, noise_t in zip(embed, action, is_first, noise, strict=True):
        keep = (~is_first_t).to(embed.dtype).unsqueeze(-1)  # (B, 1)
        previous = State(*(part * keep for part in state))
        prior = rssm.prior_step(previous, action_t * keep, noise_t)
        state = rssm.posterior_step(prior, embed_t, noise_t)
        posteriors.append(state)
        priors.append(prior)
    return stack(posteriors), stack(priors)


def stack(states: list[State]) -> State:
    """States of single steps (N, …) to one with time first (T, N, …)."""
    return State(*(torch.stack(parts) for parts in zip(*states, strict=True)))
