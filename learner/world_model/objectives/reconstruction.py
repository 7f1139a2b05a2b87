"""Learning to see by drawing the image again (Dreamer, eq. 10)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from common.config import WorldModelConfig
from learner.distributions import LOG_2PI
from learner.networks import Decoder
from learner.world_model.objectives.objective import Objective, ObjectiveLoss


class Reconstruction(Objective):
    """−E[ln p(o|s)] with p = Normal(decoder mean, 1), independent over height, width and channels."""

    def __init__(self, config: WorldModelConfig, feature_size: int, embed_size: int) -> None:
        super().__init__(config, feature_size, embed_size)
        self.decoder = Decoder(feature_size, config.depth)

    def loss(self, feature: Tensor, embed: Tensor, image: Tensor, by_row: bool = False) -> ObjectiveLoss:
        """The loss in nats, and `image_loss`."""
        pixels = image[0].numel()
        drawn = self.draw(feature)
        # One pass over the learner's largest tensors, where `unit_normal_log_prob` would take five.
        squared = functional.mse_loss(drawn, image, reduction="sum") / len(image)
        loss = 0.5 * squared + 0.5 * pixels * LOG_2PI
        each = 0.5 * (drawn.detach() - image).square().flatten(1).sum(1) if by_row else None
        return ObjectiveLoss(loss, {"image_loss": loss.detach()}, drawn, each)

    def draw(self, feature: Tensor) -> Tensor:
        """The decoder's mean image of each feature."""
        return self.decoder(feature).to(feature.dtype)
