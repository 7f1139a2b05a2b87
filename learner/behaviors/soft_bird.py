"""Soft-BIRD: entropy as a part of the imagined reward (BIRD, eq. 11–12)."""

from __future__ import annotations

from torch import Tensor

from common.config import Config
from learner.behaviors.dreamer import Dream, Dreamer
from learner.behaviors.entropy import entropy_noise_shape, policy_entropy


def soft_reward(reward: Tensor, entropy: Tensor, alpha: float) -> Tensor:
    """r_τ + α · entropy(π(·|z_τ)) (BIRD, eq. 11): reward and entropy (H, N) → (H, N)."""
    return reward + alpha * entropy


class SoftBird(Dreamer):
    """Soft-BIRD (Zhu et al. 2020, the ablation): Dreamer whose imagined reward is
    raised by the policy's entropy; no confidence weights, no limited replay.
    """

    def __init__(self, config: Config, feature_size: int, action_size: int) -> None:
        super().__init__(config, feature_size, action_size)
        self.soft = config.soft_bird

    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """Dreamer's, and `entropy` for the policy's samples at imagined states."""
        shapes = super().noise_shapes(batch_size, length, starts)
        samples = entropy_noise_shape(self.soft.entropy, self.soft.entropy_samples, *shapes["action"])
        return {**shapes, "entropy": samples}

    def rewards(self, dream: Dream, noise: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The reward with the entropy at each imagined state, which moves the policy there and not the state."""
        policy = self.acting.distribution(dream.feature.detach())  # (H, N, A)
        entropy = policy_entropy(policy, self.soft.entropy, noise["entropy"])
        return soft_reward(dream.reward, entropy, self.soft.alpha), {"policy_entropy": entropy.detach().mean()}
