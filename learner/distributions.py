"""The densities of the model, as plain functions of reparameterised samples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

LOG_2PI = math.log(2 * math.pi)


def unit_normal_log_prob(mean: Tensor, value: Tensor) -> Tensor:
    """ln N(value; mean, 1) element by element: −½(value − mean)² − ½ ln 2π."""
    return -0.5 * (value - mean).square() - 0.5 * LOG_2PI


def normal_log_prob(mean: Tensor, std: Tensor, value: Tensor) -> Tensor:
    """ln N(value; mean, std²) element by element."""
    return -0.5 * ((value - mean) / std).square() - std.log() - 0.5 * LOG_2PI


class TanhNormal(NamedTuple):
    """tanh of a diagonal Gaussian: the actor's action distribution.

    Attributes:
        mean: (..., A), before the tanh.
        std: (..., A), before the tanh.
    """

    mean: Tensor
    std: Tensor

    def pre_tanh_sample(self, noise: Tensor) -> Tensor:
        """The Gaussian sample mean + std · noise for standard normal `noise` (..., A)."""
        return self.mean + self.std * noise

    def rsample(self, noise: Tensor) -> Tensor:
        """A reparameterised action in (−1, 1) for standard normal `noise` (..., A)."""
        return torch.tanh(self.pre_tanh_sample(noise))

    def log_prob_from_pretanh(self, pre_tanh: Tensor) -> Tensor:
        """ln density (...) of the action tanh(pre_tanh), summed over A; finite however saturated the action is.

        Uses ln(1 − tanh²u) = 2 (ln 2 − u − softplus(−2u)).
        """
        gaussian = normal_log_prob(self.mean, self.std, pre_tanh)
        log_slope = 2.0 * (math.log(2.0) - pre_tanh - functional.softplus(-2.0 * pre_tanh))
        return (gaussian - log_slope).sum(-1)

    def entropy_before_tanh(self) -> Tensor:
        """Entropy (...) of the Gaussian before the tanh: Σ_A ½ · ln(2πe·σ²)."""
        return (self.std.log() + 0.5 * (LOG_2PI + 1.0)).sum(-1)
