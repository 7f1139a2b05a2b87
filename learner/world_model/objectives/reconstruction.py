"""Learning to see by drawing the image again (Dreamer, eq. 10)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from common.config import WorldModelConfig
from learner.convolutions.blocks import pixels
from learner.distributions import LOG_2PI
from learner.networks import Decoder
from learner.pictures import in_blocks
from learner.world_model.objectives.objective import Objective, ObjectiveLoss


class Reconstruction(Objective):
    """−E[ln p(o|s)] with p = Normal(decoder mean, 1), independent over height, width and channels."""

    def __init__(self, config: WorldModelConfig, feature_size: int, embed_size: int) -> None:
        super().__init__(config, feature_size, embed_size)
        self.decoder = Decoder(feature_size, config.depth)

    def loss(self, feature: Tensor, embed: Tensor, image: Tensor, by_row: bool = False) -> ObjectiveLoss:
        """The loss in nats, and `image_loss`."""
        values = image[0].numel()
        if in_blocks(image):
            if not self.keeps_images:
                error, each = self.decoder.error(feature, image)
                loss = error / len(image) + 0.5 * values * LOG_2PI
                return ObjectiveLoss(loss, {"image_loss": loss.detach()}, by_row=each if by_row else None)
            image = pixels(image, 64, 64)
        drawn = self.draw(feature)
        # One pass over the learner's largest tensors, where `unit_normal_log_prob` would take five.
        squared = functional.mse_loss(drawn, image, reduction="sum") / len(image)
        loss = 0.5 * squared + 0.5 * values * LOG_2PI
        lost = 0.5 * (drawn.detach() - image).square().flatten(1).sum(1) if by_row else None
        return ObjectiveLoss(loss, {"image_loss": loss.detach()}, drawn, lost)

    def draw(self, feature: Tensor) -> Tensor:
        """The decoder's mean image of each feature."""
        return self.decoder(feature).to(feature.dtype)
