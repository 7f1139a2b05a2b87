"""Convolutions, and their ways back, in the form that a CPU computes fastest."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from learner.convolutions.blocks import pixels_where
from learner.convolutions.deconvolution import Deconvolution
from learner.convolutions.gradients import sum_of_places, value_gradient, weight_gradient
from learner.convolutions.windows import windows


class Convolution:
    """A convolution with these weights, and ReLU. What its few results saw is gathered for one product.

    Args:
        weight: (O, I, K, K).
        bias: (O).
        stride: 1 or 2.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int = 2) -> None:
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias, self.stride, self.kernel = bias, stride, weight.shape[-1]

    @cached_property
    def transposed(self) -> Deconvolution:
        """What leads back to the value, with stride 2."""
        return Deconvolution(self.weight)

    def forth(self, value: Tensor) -> Tensor:
        """(N, I, H, W) → (N, O, (H − K) / stride + 1, (W − K) / stride + 1), both channels last."""
        if (value.shape[-1] - self.kernel) // self.stride > 1:
            return functional.conv2d(value, self.weight, self.bias, self.stride).relu_()
        seen = windows(value.permute(0, 2, 3, 1), self.kernel, self.stride)  # (N, h, w, K · K · I)
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # (O, K · K · I)
        result = torch.addmm(self.bias, seen.flatten(0, 2), matrix.T).relu_()
        return result.view(*seen.shape[:3], -1).permute(0, 3, 1, 2)

    def own_gradients(self, gradient: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Those of weight and bias, given the result's without its ReLU."""
        return weight_gradient(gradient, value, self.weight, self.stride), sum_of_places(gradient)

    def back(self, gradient: Tensor, value: Tensor) -> Tensor:
        """The gradient of what the value's own ReLU saw, given the result's without its ReLU."""
        few = gradient.shape[-1] <= 2 or self.weight.shape[1] <= 32 or gradient.dtype == torch.bfloat16
        if self.stride == 2 and few:
            return pixels_where(self.transposed.blocks(gradient), value)
        to_value = value_gradient(gradient, value, self.weight, self.stride)
        return torch.ops.aten.threshold_backward(to_value, value, 0.0)
