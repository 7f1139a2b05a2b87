"""BIRD: Dreamer that trusts the dreams its model is sure of (BIRD, eq. 5–10)."""

from __future__ import annotations

from torch import Tensor

from common.config import Config
from learner.batch import Batch
from learner.behaviors.dreamer import Dream, Dreamer
from learner.behaviors.entropy import entropy_noise_shape, policy_entropy
from learner.distributions import normal_log_prob
from learner.ranks import ALONE, Ranks
from learner.world_model import WorldModel
from learner.world_model.state import State


def confidence_weight(log_prob: Tensor, ranks: Ranks = ALONE) -> Tensor:
    """w = clip((c − mean(c)) / (std(c) + 1e-9) + 1, 0, 2) with c_i = Σ_τ ln p(s_τ) (BIRD, eq. 8, released code).

    Args:
        log_prob: (H, N), ln N(s_τ; prior mean, prior std) of N imagined trajectories, summed over S.
        ranks: who share the batch: mean and std are over the trajectories of all.

    Returns:
        (N,), detached; mean 1 before clipping.
    """
    # In float32, rounding alone would tell equal trajectories apart, and the square of a huge density overflows.
    confidence = log_prob.detach().double().sum(0)  # (N,)
    weight = (confidence - ranks.mean(confidence.mean())) / (ranks.std(confidence) + 1e-9) + 1.0
    return weight.clamp(0.0, 2.0).to(log_prob.dtype)


class Bird(Dreamer):
    """BIRD (Zhu et al. 2020): Dreamer that weights each imagined trajectory by
    the model's confidence in it, and keeps the policy's entropy up at real states.

    Actor: −mean(w_i · D_τ · R_τ) − w_MI · E_real[entropy(π(·|z))]; value: Dreamer's, weighted by w_i too.
    """

    def __init__(self, config: Config, feature_size: int, action_size: int) -> None:
        super().__init__(config, feature_size, action_size)
        self.bird = config.bird

    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """Dreamer's, and `entropy` for the policy's samples at real states."""
        shapes = super().noise_shapes(batch_size, length, starts)
        if self.bird.entropy_weight == 0:
            return shapes
        action_size = self.noise_sizes[1]
        samples = entropy_noise_shape(self.bird.entropy, self.bird.entropy_samples, length, batch_size, action_size)
        return {**shapes, "entropy": samples}

    def weights(self, dream: Dream) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Dreamer's, times each trajectory's confidence."""
        on_actor, on_value, metrics = super().weights(dream)
        states = dream.states.detach()
        weight = confidence_weight(normal_log_prob(states.mean, states.std, states.stoch).sum(-1), self.ranks)
        metrics["confidence_weight_std"] = self.ranks.std(weight)
        return weight * on_actor, weight * on_value if self.bird.confidence_on_value else on_value, metrics

    def losses(
        self, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Dreamer's, with the entropy at the batch's own states in the actor's."""
        losses, metrics = super().losses(world_model, batch, posterior, noise)
        if self.bird.entropy_weight > 0:
            policy = self.acting.distribution(posterior.feature.detach())  # (L, B, A)
            entropy = policy_entropy(policy, self.bird.entropy, noise["entropy"]).mean()
            losses["actor"] = losses["actor"] - self.bird.entropy_weight * entropy
            metrics["policy_entropy"] = entropy.detach()
        return losses, metrics
