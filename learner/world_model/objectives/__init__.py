"""Representation objectives by name: what, beside reward and KL, teaches the world model to see (Dreamer section 4).

A new objective is a file here and a line in `OBJECTIVES`.
"""

from __future__ import annotations

from learner.world_model.objectives.contrastive import Contrastive, info_nce
from learner.world_model.objectives.objective import Objective
from learner.world_model.objectives.reconstruction import Reconstruction
from learner.world_model.objectives.reward_only import RewardOnly

__all__ = ["OBJECTIVES", "Objective", "info_nce"]

OBJECTIVES: dict[str, type[Objective]] = {
    "reconstruction": Reconstruction,
    "contrastive": Contrastive,
    "reward_only": RewardOnly,
}
