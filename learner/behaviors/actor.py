"""The actor network: features to a tanh-Normal over actions (Dreamer section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from common.config import ActingConfig, DreamerConfig
from learner.behaviors.behavior import Acting, Foresight
from learner.distributions import TanhNormal
from learner.networks import Mlp
from learner.world_model.state import State


class Actor(Acting):
    """π(a|z): mean scale·tanh(m/scale), std softplus(s + ln(e^init − 1)) + min, then tanh."""

    def __init__(
        self, feature_size: int, action_size: int, config: DreamerConfig, acting: ActingConfig | None = None
    ) -> None:
        super().__init__()
        self.action_size = action_size
        self.mean_scale = config.mean_scale
        self.min_std = config.min_std
        self.std_shift = math.log(math.expm1(config.init_std)) if config.init_std > 0 else 0.0
        self.settings = acting or ActingConfig()
        self.network = Mlp(feature_size, 2 * action_size, config.actor_layers, config.units)

    def distribution(self, feature: Tensor) -> TanhNormal:
        """Features (..., F) → the distribution over actions (..., A)."""
        mean, raw = self.network(feature).to(feature.dtype).chunk(2, -1)
        if self.mean_scale > 0:
            mean = self.mean_scale * torch.tanh(mean / self.mean_scale)
        return TanhNormal(mean, functional.softplus(raw + self.std_shift) + self.min_std)

    def forward(self, feature: Tensor, noise: Tensor) -> Tensor:
        """A reparameterised action (..., A) for features (..., F) and standard normal noise (..., A)."""
        return self.distribution(feature).rsample(noise)

    def mode(self, feature: Tensor, noise: Tensor) -> Tensor:
        """The densest of K samples, for each row by itself: features (E, F), noise (K, E, A) → actions (E, A)."""
        distribution = self.distribution(feature)
        pre_tanh = distribution.pre_tanh_sample(noise)  # (K, E, A)
        best = distribution.log_prob_from_pretanh(pre_tanh).argmax(0)  # (E,)
        return torch.tanh(pre_tanh[best, torch.arange(len(best), device=best.device)])

    def noise_shapes(self, environments: int, training: bool) -> dict[str, tuple[int, ...]]:
        """`action`: (E, A) for a sample, (K, E, A) for the mode."""
        if self._samples(training):
            return {"action": (environments, self.action_size)}
        return {"action": (self.settings.mode_samples, environments, self.action_size)}

    def act(self, model: Foresight, latent: State, noise: dict[str, Tensor], training: bool) -> Tensor:
        """A sample while training (or the mode, if so configured), the mode in evaluation; looks no step ahead."""
        choose = self if self._samples(training) else self.mode
        return choose(latent.feature, noise["action"])

    def _samples(self, training: bool) -> bool:
        return training and self.settings.train_action == "sample"
