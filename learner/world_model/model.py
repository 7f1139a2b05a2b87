"""The world model: encoder, RSSM, representation objective, reward head and, if asked for, discount head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.config import Config
from learner.batch import Batch
from learner.distributions import unit_normal_log_prob
from learner.networks import Encoder, ScalarHead, normalise
from learner.world_model.kl import gaussian_kl, kl_loss
from learner.world_model.objectives import OBJECTIVES
from learner.world_model.rssm import RSSM
from learner.world_model.state import State


class ModelLoss(NamedTuple):
    """What one pass over a batch gives.

    Attributes:
        loss: scalar.
        posterior: states (L, B, …), attached to the graph.
        metrics: detached scalars by name.
    """

    loss: Tensor
    posterior: State
    metrics: dict[str, Tensor]


class WorldModel(nn.Module):
    """Everything that explains the data; behaviours are learnt inside it."""

    def __init__(self, config: Config, action_size: int) -> None:
        super().__init__()
        self.config = config.world_model
        self.gamma = config.dreamer.gamma
        self.encoder = Encoder(self.config.depth)
        self.rssm = RSSM(self.config, action_size, self.encoder.size)
        feature = self.rssm.feature_size
        self.objective = OBJECTIVES[config.objective](self.config, feature)
        self.reward = ScalarHead(feature, self.config.reward_layers, self.config.reward_units)
        self.discount_head: ScalarHead | None = None
        if self.config.discount_head:
            self.discount_head = ScalarHead(feature, self.config.discount_layers, self.config.discount_units)

    def loss(self, batch: Batch, noise: Tensor) -> ModelLoss:
        """−E[ln p(o|s)] − E[ln p(r|s)] + β · max(E[KL], free nats), means over B and L (Dreamer, eq. 10).

        With a discount head, −scale · E[ln Bernoulli(γ · discount)] joins it. The first two terms' place is the
        objective's to fill.

        Args:
            batch: B sequences of L rows.
            noise: standard normal (L, B, S).
        """
        batch_size, length = batch.reward.shape
        image = normalise(batch.image)  # (B · L, 3, 64, 64)
        embed = self.encoder(image).view(batch_size, length, -1).transpose(0, 1)  # (L, B, E)
        posterior, prior = self.rssm.observe(embed, batch.action.transpose(0, 1), batch.is_first.transpose(0, 1), noise)
        feature = posterior.feature.transpose(0, 1)  # (B, L, F), so that images need not move
        objective_loss, metrics = self.objective.loss(feature.flatten(0, 1), image)
        reward_loss = -unit_normal_log_prob(self.reward(feature), batch.reward).mean()
        kl = kl_loss(posterior, prior, self.config.free_nats, self.config.kl_clip)
        loss = objective_loss + reward_loss + self.config.kl_scale * kl
        if self.discount_head is not None:
            target = self.gamma * batch.discount
            discount_loss = functional.binary_cross_entropy_with_logits(self.discount_head(feature), target)
            loss = loss + self.config.discount_scale * discount_loss
            metrics |= {"discount_loss": discount_loss.detach()}
        metrics |= {
            "model_loss": loss.detach(),
            "reward_loss": reward_loss.detach(),
            "kl": gaussian_kl(posterior.detach(), prior.detach()).mean(),
        }
        return ModelLoss(loss, posterior, metrics)

    def starts(self, posterior: State) -> State:
        """Where imagination may start: detached posterior states (L, B, …) → (N, …).

        With a discount head a sequence's last row is left out: whether its episode goes on is not in the batch.
        """
        if self.discount_head is not None:
            posterior = posterior.map(lambda part: part[:-1])
        return posterior.map(lambda part: part.detach().flatten(0, 1))  # (L · B, …)

    def start_count(self, batch_size: int, length: int) -> int:
        """How many starts `starts` gives for such a batch."""
        return batch_size * (length - (self.discount_head is not None))

    def discount(self, feature: Tensor) -> Tensor:
        """γ_τ at features (H, N, F): the discount head's mean, or the constant γ → (H, N)."""
        if self.discount_head is not None:
            return torch.sigmoid(self.discount_head(feature))
        return torch.full_like(feature[..., 0], self.gamma)
