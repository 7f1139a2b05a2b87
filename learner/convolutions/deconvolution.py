"""Transposed convolutions of stride 2 in the form that a CPU computes fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.convolutions.blocks import kernel_blocks, kernel_pixels, pixels
from learner.convolutions.gradients import sum_of_places, weight_gradient
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

    Every second output row and column sees every second tap alone, so that a CPU computes blocks of 2 × 2 outputs as
    the channels of one plain convolution, which fill its registers where three colours do not: 1.5 to 4 times as fast.
    The way back is a plain convolution, over the result or over its blocks.

    Args:
        weight: (I, O, K, K).
        bias: (O), or none.

    Attributes:
        over_blocks: the kernel (I, 4 · O, T, T) of the way back from blocks.
        to_blocks: the kernel (4 · O, I, T, T) of the way to blocks.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.kernel = weight.shape[-1]
        self.around = (self.kernel + 1) // 2 - 1  # T − 1
        self.bias = None if bias is None else bias.repeat(4)
        self.over_blocks = kernel_blocks(weight).contiguous(memory_format=torch.channels_last)
        to_blocks = self.over_blocks.transpose(0, 1).flip(-1, -2)
        self.to_blocks = to_blocks.contiguous(memory_format=torch.channels_last)

    def blocks(self, value: Tensor) -> Tensor:
        """(N, I, H, W) → the result's blocks (N, 4 · O, H + T − 1, W + T − 1); the last are cut off if K is odd."""
        if value.shape[-1] <= 2 and len(self.weight) >= 128 and self.bias is None:
            return self._few_blocks(value)
        return functional.conv2d(value, self.to_blocks, self.bias, padding=self.around)

    def forth(self, value: Tensor, relu: bool) -> Tensor:
        """(N, I, H, W) → (N, O, 2 (H − 1) + K, 2 (W − 1) + K), channels last, with ReLU if asked for."""
        blocks = self.blocks(value)
        if relu:
            blocks.relu_()
        height, width = (2 * (size - 1) + self.kernel for size in value.shape[-2:])
        return pixels(blocks, height, width)

    def back(self, gradient: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, weight and bias, given the result's without its ReLU."""
        to_value = functional.conv2d(gradient, self.weight, stride=2)
        return to_value, weight_gradient(value, gradient, self.weight, 2), sum_of_places(gradient)

    def back_from_blocks(self, gradient: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`back`, given the gradient of the result's blocks (N, 4 · O, H + T − 1, W + T − 1)."""
        to_bias = sum_of_places(gradient).view(4, -1).sum(0)
        if len(self.weight) > 8 or self.around != 2 or value.shape[-1] % 2:
            to_value = functional.conv2d(gradient, self.over_blocks)
            to_weight = weight_gradient(value, gradient, self.over_blocks, 1)
            return to_value, kernel_pixels(to_weight, self.kernel), to_bias
        gradient, value, pairs = _beside(gradient, 2), _beside(value, 2), _pairs(self.over_blocks)
        to_value = functional.conv2d(gradient, pairs)
        to_pairs = weight_gradient(value, gradient, pairs, 1)
        return _beside(to_value, 0.5), kernel_pixels(_weight_of(to_pairs), self.kernel), to_bias

    def _few_blocks(self, value: Tensor) -> Tensor:
        """`blocks` without bias: one product for what each place gives to all blocks, and a sum of what blocks got."""
        count, _, height, width = value.shape
        matrix = self.over_blocks.permute(0, 2, 3, 1)  # (I, T, T, 4 · O)
        given = (value.permute(0, 2, 3, 1) @ matrix.flatten(1)).unflatten(-1, matrix.shape[1:])
        result = value.new_zeros(count, height + self.around, width + self.around, matrix.shape[-1])
        for row in range(self.around + 1):
            for column in range(self.around + 1):
                result[:, row : row + height, column : column + width] += given[..., row, column, :]
        return result.permute(0, 3, 1, 2)


def _beside(value: Tensor, columns: float) -> Tensor:
    """(N, C, H, W), channels last → (N, columns · C, H, W / columns): so many columns' channels beside each other."""
    last = value.permute(0, 2, 3, 1)
    count, height, width, channels = last.shape
    return last.reshape(count, height, int(width / columns), int(channels * columns)).permute(0, 3, 1, 2)


def _pairs(weight: Tensor) -> Tensor:
    """Weights (I, O, 3, 3) as (2 I, 2 O, 3, 2): of two inputs beside each other, which see two times two columns."""
    wide = torch.stack([functional.pad(weight, (0, 1)), functional.pad(weight, (1, 0))])  # (2, I, O, 3, 4)
    apart = wide.unflatten(-1, (2, 2)).permute(0, 1, 5, 2, 3, 4)  # (2, I, 2, O, 3, 2)
    return apart.flatten(2, 3).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def _weight_of(pairs: Tensor) -> Tensor:
    """Gradients of `_pairs` → of the weights."""
    wide = pairs.unflatten(0, (2, -1)).unflatten(2, (2, -1)).permute(0, 1, 3, 4, 5, 2).flatten(-2)  # (2, I, O, 3, 4)
    return wide[0, ..., :3] + wide[1, ..., 1:]


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
