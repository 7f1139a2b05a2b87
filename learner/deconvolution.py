"""Transposed convolutions of stride 2 in the form that a CPU computes fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.precision import compute_type


def deconvolve(value: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    """`conv_transpose2d` with stride 2, and ReLU if asked for: value (N, I, H, W), weight (I, O, K, K), bias (O)."""
    if value.device.type != "cpu":
        result = functional.conv_transpose2d(value, weight, bias, stride=2)
        return functional.relu(result, inplace=True) if relu else result
    dtype = compute_type(value)
    return _Deconvolution.apply(value.to(dtype), weight.to(dtype), bias.to(dtype), relu)


class Deconvolution:
    """A transposed convolution with these weights.

    Every second output row and column sees every second tap alone, so that a CPU computes the four kinds of outputs as
    the channels of one plain convolution, which fill its registers where three colours do not: 1.5 to 4 times as fast.
    The way back is a plain convolution as it is. Where its channels are few, two columns' are taken together.

    Args:
        weight: (I, O, K, K).
        bias: (O).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        inputs, outputs, kernel, _ = weight.shape
        self.weight, self.bias = weight, bias.repeat(4)
        self.taps = taps = (kernel + 1) // 2
        even = functional.pad(weight, (0, 2 * taps - kernel, 0, 2 * taps - kernel))
        phases = even.view(inputs, outputs, taps, 2, taps, 2).permute(3, 5, 1, 0, 2, 4).flip(-1, -2)
        self.phases = phases.reshape(4 * outputs, inputs, taps, taps).contiguous(memory_format=torch.channels_last)

    def forth(self, value: Tensor, relu: bool) -> Tensor:
        """(N, I, H, W) → (N, O, 2 (H − 1) + K, 2 (W − 1) + K), channels last, with ReLU if asked for."""
        apart = functional.conv2d(value, self.phases, self.bias, padding=self.taps - 1)
        if relu:
            apart.relu_()
        # Rows of the kinds, columns of the kinds and channels: two columns' channels lie together, and move together.
        pairs = apart.permute(0, 2, 3, 1).unflatten(-1, (2, -1)).transpose(2, 3)
        result = pairs.flatten(1, 2).unflatten(-1, (2, -1)).flatten(2, 3)
        kernel = self.weight.shape[-1]
        if kernel % 2:
            height, width = (2 * (size - 1) + kernel for size in value.shape[-2:])
            result = result[:, :height, :width].contiguous()
        return result.permute(0, 3, 1, 2)

    def back(self, gradient: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, weight and bias, given the result's without its ReLU."""
        to_bias = gradient.sum((0, 2, 3))
        if len(self.weight) > 8 or self.weight.shape[-1] != 6 or value.shape[-1] % 2:
            to_value = functional.conv2d(gradient, self.weight, stride=2)
            return to_value, weight_gradient(value, gradient, self.weight, (2, 2)), to_bias
        gradient, value, pairs = _beside(gradient, 4), _beside(value, 2), _pairs(self.weight)
        to_value = functional.conv2d(gradient, pairs, stride=(2, 1))
        to_pairs = weight_gradient(value, gradient, pairs, (2, 1))
        return _beside(to_value, 0.5), _weight_of(to_pairs), to_bias


def weight_gradient(gradient: Tensor, value: Tensor, weight: Tensor, stride: tuple[int, int]) -> Tensor:
    """That of a convolution's weight (O, I, K, K): result's gradient (N, O, …), value (N, I, …)."""
    mask = [False, True, False]
    return torch.ops.aten.convolution_backward(
        gradient, value, weight, None, list(stride), [0, 0], [1, 1], False, [0, 0], 1, mask
    )[1]


def _beside(value: Tensor, columns: float) -> Tensor:
    """(N, C, H, W), channels last → (N, columns · C, H, W / columns): so many columns' channels beside each other."""
    last = value.permute(0, 2, 3, 1)
    count, height, width, channels = last.shape
    return last.reshape(count, height, int(width / columns), int(channels * columns)).permute(0, 3, 1, 2)


def _pairs(weight: Tensor) -> Tensor:
    """Weights (I, O, 6, 6) as (2 I, 4 O, 6, 2): of two inputs beside each other, which see two times four columns."""
    wide = torch.stack([functional.pad(weight, (0, 2)), functional.pad(weight, (2, 0))])  # (2, I, O, 6, 8)
    apart = wide.unflatten(-1, (2, 4)).permute(0, 1, 5, 2, 3, 4)  # (2, I, 4, O, 6, 2)
    return apart.flatten(2, 3).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _weight_of(pairs: Tensor) -> Tensor:
    """Gradients of `_pairs` → of the weights."""
    wide = pairs.unflatten(0, (2, -1)).unflatten(2, (4, -1)).permute(0, 1, 3, 4, 5, 2).flatten(-2)  # (2, I, O, 6, 8)
    return wide[0, ..., :6] + wide[1, ..., 2:]


class _Deconvolution(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        ctx.layer = Deconvolution(weight, bias)
        result = ctx.layer.forth(value, relu)
        ctx.save_for_backward(value, *([result] if relu else []))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, *results = ctx.saved_tensors
        for result in results:
            gradient = torch.ops.aten.threshold_backward(gradient, result, 0.0)
        return *ctx.layer.back(gradient, value), None
