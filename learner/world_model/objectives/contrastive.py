"""Learning to see by telling which image a state belongs to (Dreamer, eq. 11–12)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from common.config import WorldModelConfig
from learner.distributions import LOG_2PI
from learner.networks import Mlp
from learner.world_model.objectives.objective import Objective, ObjectiveLoss

SumOver = Literal["observations", "states"]


def info_nce(log_prob: Tensor, sum_over: SumOver = "observations") -> Tensor:
    """J_NCE = mean_i(m[i, i] − logsumexp_j m[i, j]), to be maximised (Dreamer, eq. 12).

    Args:
        log_prob: (M, M), m[i, j] = ln q(z_i | o_j).
        sum_over: `observations` normalises each state over j (the paper), `states` each observation over i (the
            released code).

    Returns:
        A scalar, at most 0.
    """
    return recognition(log_prob, sum_over).mean()


def recognition(log_prob: Tensor, sum_over: SumOver, first: int = 0) -> Tensor:
    """What `info_nce` is the mean of: (M, M) → (M,), each at most 0.

    Where ranks share the batch, of n states or observations against all M of the other kind: (n, M) or (M, n) → (n,).
    The own ones are those from `first` on.
    """
    if sum_over == "observations":
        return log_prob.diagonal(first) - log_prob.logsumexp(1)
    return log_prob.diagonal(-first) - log_prob.logsumexp(0)


def pairwise_normal_log_prob(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """ln N(value_i; mean_j, std_j²) of all pairs, summed over F: (M, F) and (N, F) twice → (M, N).

    The square is multiplied out, so that all pairs are matrix products and no (M, M, F) tensor is built. The products
    cancel, so they are taken in float64: in float32 a state model of std 0.01 is wrong by up to a nat.
    """
    wide_value, wide_mean, wide_std = value.double(), mean.double(), std.double()
    precision = wide_std.square().reciprocal()  # (N, F)
    squares = wide_value.square() @ precision.T - 2.0 * wide_value @ (wide_mean * precision).T  # (M, N)
    constant = (wide_mean.square() * precision + 2.0 * wide_std.log() + LOG_2PI).sum(1)  # (N,)
    return (-0.5 * (squares + constant)).to(value.dtype)


class Contrastive(Objective):
    """−J_NCE with a state model q(z|o) = Normal over features, from the image's embedding; no decoder."""

    def __init__(self, config: WorldModelConfig, feature_size: int, embed_size: int) -> None:
        super().__init__(config, feature_size, embed_size)
        self.sum_over = config.nce_sum
        self.min_std = config.contrastive_min_std
        self.state_model = Mlp(embed_size, 2 * feature_size, config.contrastive_layers, config.contrastive_units)

    def loss(self, feature: Tensor, embed: Tensor, image: Tensor, by_row: bool = False) -> ObjectiveLoss:
        """−J_NCE over all pairs of the batch, in nats, and `contrastive_accuracy`: how often the right one wins.

        Where R ranks share the batch, each takes its N states and the observations of all (or the other way round).
        """
        mean, raw = self.state_model(embed).to(feature.dtype).chunk(2, -1)  # (N, F)
        std = functional.softplus(raw + math.log(math.expm1(1.0))) + self.min_std
        over_observations = self.sum_over == "observations"
        if over_observations:
            mean, std = self.ranks.gather(torch.cat([mean, std], -1)).chunk(2, -1)  # (R · N, F)
        else:
            feature = self.ranks.gather(feature)  # (R · N, F)
        first = self.ranks.rank * len(embed)
        log_prob = pairwise_normal_log_prob(feature, mean, std)  # (N, R · N) or (R · N, N)
        each = -recognition(log_prob, self.sum_over, first)  # (N,)
        loss = each.mean()
        best = log_prob.detach().argmax(1 if over_observations else 0)
        right = (best == torch.arange(first, first + len(best), device=best.device)).float().mean()
        metrics = {"contrastive_loss": loss.detach(), "contrastive_accuracy": right}
        return ObjectiveLoss(loss, metrics, by_row=each.detach() if by_row else None)
