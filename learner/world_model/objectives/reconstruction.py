"""Learning to see by drawing the image again (Dreamer, eq. 10)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from common.config import WorldModelConfig
from learner.distributions import LOG_2PI
from learner.networks import Decoder
from learner.world_model.objectives.objective import Objective


class Reconstruction(Objective):
    """−E[ln p(o|s)] with p = Normal(decoder mean, 1), independent over height, width and channels."""

    def __init__(self, config: WorldModelConfig, feature_size: int) -> None:
        super().__init__(config, feature_size)
        self.decoder = Decoder(feature_size, config.depth)

    def loss(self, feature: Tensor, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (N, F), normalised images (N, 3, 64, 64) → the scalar loss in nats, and `image_loss`."""
        pixels = image[0].numel()
        # One pass over the learner's largest tensors, where `unit_normal_log_prob` would take five.
        squared = functional.mse_loss(self.draw(feature), image, reduction="sum") / len(image)
        loss = 0.5 * squared + 0.5 * pixels * LOG_2PI
        return loss, {"image_loss": loss.detach()}

    def draw(self, feature: Tensor) -> Tensor:
        """The decoder's mean image of each feature."""
        return self.decoder(feature)
