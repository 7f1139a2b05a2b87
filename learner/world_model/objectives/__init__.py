"""Representation objectives by name: what, beside reward and KL, teaches the world model to see (Dreamer section 4).

A new objective is a file here and a line in `OBJECTIVES`.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from common.config import WorldModelConfig
from learner.world_model.objectives.reconstruction import Reconstruction


class Objective(Protocol):
    """An `nn.Module` that holds what the objective needs, built from (config, feature size)."""

    def __init__(self, config: WorldModelConfig, feature_size: int) -> None: ...

    def loss(self, feature: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over features (N, F) and their normalised images (N, 3, 64, 64), and metrics by name."""
        ...


OBJECTIVES: dict[str, type[nn.Module]] = {
    "reconstruction": Reconstruction,
}
