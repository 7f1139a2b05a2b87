"""The world model: encoder, RSSM, representation objective, reward head and, if asked for, discount head."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.config import Config
from learner.batch import Batch
from learner.distributions import unit_normal_log_prob
from learner.networks import Encoder, ScalarHead
from learner.pictures import prepared
from learner.ranks import ALONE, Ranks
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
        drawn: (B · L, 3, 64, 64), the images drawn of the posterior states, attached; None where none are.
        by_sequence: (B,), what each sequence lost, detached; None unless batches are drawn by it.
    """

    loss: Tensor
    posterior: State
    metrics: dict[str, Tensor]
    drawn: Tensor | None
    by_sequence: Tensor | None = None


class WorldModel(nn.Module):
    """Everything that explains the data; behaviours are learnt inside it."""

    ranks: Ranks = ALONE

    def __init__(self, config: Config, action_size: int) -> None:
        super().__init__()
        self.config = config.world_model
        self.gamma = config.dreamer.gamma
        self.by_sequence = config.replay.sampling == "prioritized"
        self.encoder = Encoder(self.config.depth)
        self.rssm = RSSM(self.config, action_size, self.encoder.size)
        feature = self.rssm.feature_size
        self.objective = OBJECTIVES[config.objective](self.config, feature, self.encoder.size)
        self.reward = ScalarHead(feature, self.config.reward_layers, self.config.reward_units)
        self.discount_head: ScalarHead | None = None
        if self.config.discount_head:
            self.discount_head = ScalarHead(feature, self.config.discount_layers, self.config.discount_units)

    def loss(self, batch: Batch, noise: Tensor) -> ModelLoss:
        """−E[ln p(o|s)] − E[ln p(r|s)] + β · max(E[KL], free nats), means over B and L (Dreamer, eq. 10).

        With a discount head, −scale · E[ln Bernoulli(γ · discount)] joins it. The first two terms' place is the
        objective's to fill.

        What a sequence lost, where that is wanted, is the mean of the same terms over its rows, without free nats and
        without the constants of the normal densities: eleven thousand nats that all images share would hide the rest.

        Args:
            batch: B sequences of L rows.
            noise: standard normal (L, B, S).
        """
        batch_size, length = batch.reward.shape
        image = prepared(batch.image, self.rssm.cell.weight_hh.dtype)  # of B · L rows
        flat_embed = self.encoder(image)  # (B · L, E)
        embed = flat_embed.view(batch_size, length, -1).transpose(0, 1)  # (L, B, E)
        posterior, prior = self.rssm.observe(embed, batch.action.transpose(0, 1), batch.is_first.transpose(0, 1), noise)
        feature = posterior.feature.transpose(0, 1)  # (B, L, F), so that images need not move
        objective = self.objective.loss(feature.flatten(0, 1), flat_embed, image, self.by_sequence)
        metrics = dict(objective.metrics)
        reward = self.reward(feature)  # (B, L)
        reward_loss = -unit_normal_log_prob(reward, batch.reward).mean()
        kl = kl_loss(posterior, prior, self.config.free_nats, self.config.kl_clip, self.ranks)
        loss = objective.loss + reward_loss + self.config.kl_scale * kl
        plain_kl = gaussian_kl(posterior.detach(), prior.detach())  # (L, B)
        lost: Tensor | None = None
        if objective.by_row is not None:
            off = 0.5 * (reward.detach() - batch.reward).square()  # (B, L)
            lost = objective.by_row.view_as(off) + off + self.config.kl_scale * plain_kl.T
        if self.discount_head is not None:
            logit, target = self.discount_head(feature), self.gamma * batch.discount  # (B, L)
            discount_loss = functional.binary_cross_entropy_with_logits(logit, target)
            loss = loss + self.config.discount_scale * discount_loss
            metrics |= {"discount_loss": discount_loss.detach()}
            if lost is not None:
                each = functional.binary_cross_entropy_with_logits(logit.detach(), target, reduction="none")
                lost = lost + self.config.discount_scale * each
        metrics |= {"model_loss": loss.detach(), "reward_loss": reward_loss.detach(), "kl": plain_kl.mean()}
        return ModelLoss(loss, posterior, metrics, objective.drawn, None if lost is None else lost.mean(1))

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
