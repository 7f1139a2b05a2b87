"""The interface between the world model and what teaches it to see."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from common.config import WorldModelConfig


class Objective(nn.Module):
    """A representation objective, with the networks that it alone needs.

    Args:
        config: the world model's sizes.
        feature_size: F.
    """

    def __init__(self, config: WorldModelConfig, feature_size: int) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, feature: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar loss over features (N, F) and their normalised images (N, 3, 64, 64), and metrics by name."""

    def draw(self, feature: Tensor) -> Tensor | None:
        """Features (N, F) → normalised images (N, 3, 64, 64); None where the objective draws none."""
        return None
