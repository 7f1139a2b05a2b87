"""Learning to see from rewards alone (Dreamer section 4, figure 8)."""

from __future__ import annotations

from torch import Tensor

from learner.world_model.objectives.objective import Objective, ObjectiveLoss


class RewardOnly(Objective):
    """Nothing beside the reward and KL terms."""

    def loss(self, feature: Tensor, embed: Tensor, image: Tensor, by_row: bool = False) -> ObjectiveLoss:
        """Zero."""
        return ObjectiveLoss(feature.new_zeros(()), {}, by_row=feature.new_zeros(len(feature)) if by_row else None)
