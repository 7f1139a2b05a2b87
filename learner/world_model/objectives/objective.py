"""The interface between the world model and what teaches it to see."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from common.config import WorldModelConfig
from learner.ranks import ALONE, Ranks


class ObjectiveLoss(NamedTuple):
    """What an objective says of a batch.

    Attributes:
        loss: scalar.
        metrics: detached scalars by name.
        drawn: (N, 3, 64, 64), the images that `draw` gives of the features, or None where none were drawn or kept.
        by_row: (N,), each row's part of the loss, detached and without what is constant; None unless asked for.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    drawn: Tensor | None = None
    by_row: Tensor | None = None


class Objective(nn.Module):
    """A representation objective, with the networks that it alone needs.

    Args:
        config: the world model's sizes.
        feature_size: F.
        embed_size: E.
    """

    ranks: Ranks = ALONE
    keeps_images: bool = True  # whether anybody wants what was drawn

    def __init__(self, config: WorldModelConfig, feature_size: int, embed_size: int) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, feature: Tensor, embed: Tensor, image: Tensor, by_row: bool = False) -> ObjectiveLoss:
        """The loss of features (N, F), given their images' embeddings (N, E) and the images, as `prepared`.

        `by_row` asks for each row's part of it as well.
        """

    def draw(self, feature: Tensor) -> Tensor | None:
        """Features (N, F) → normalised images (N, 3, 64, 64); None where the objective draws none."""
        return None
