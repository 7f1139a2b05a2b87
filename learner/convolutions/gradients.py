"""The gradients of convolutions, where a way back is written by hand; all tensors lie with channels last."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.convolutions.windows import windows

FEW_PLACES = {torch.bfloat16: 6}  # in a row; in other types, whose convolutions lose less there, 2
FEW_IMAGES = 256  # what more of them saw outgrows the caches


def weight_gradient(gradient: Tensor, value: Tensor, weight: Tensor, stride: int) -> Tensor:
    """That of a convolution's weight (O, I, K, K): result's gradient (N, O, h, w), value (N, I, H, W)."""
    if gradient.shape[-1] > FEW_PLACES.get(value.dtype, 2) or len(gradient) > FEW_IMAGES:
        return _convolution_backward(gradient, value, weight, stride, [False, True, False])[1]
    # Few places, and a large sum over them for each weight: faster as a product of all that they saw.
    seen = windows(value.permute(0, 2, 3, 1), weight.shape[-1], stride)  # (N, h, w, K · K · I)
    matrix = gradient.permute(0, 2, 3, 1).flatten(0, 2).T @ seen.flatten(0, 2)  # (O, K · K · I)
    return matrix.unflatten(1, (*weight.shape[2:], -1)).permute(0, 3, 1, 2)


def value_gradient(gradient: Tensor, value: Tensor, weight: Tensor, stride: int) -> Tensor:
    """That of what the convolution saw, with the same arguments."""
    return _convolution_backward(gradient, value, weight, stride, [True, False, False])[0]


def sum_of_places(value: Tensor) -> Tensor:
    """(N, C, H, W) → (C); a row's places are added beside each other, since channels are few."""
    last = value.permute(0, 2, 3, 1)
    return last.reshape(-1, last.shape[2] * last.shape[3]).sum(0).view(last.shape[2:]).sum(0)


def _convolution_backward(
    gradient: Tensor, value: Tensor, weight: Tensor, stride: int, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten.convolution_backward(
        gradient, value, weight, None, [stride, stride], [0, 0], [1, 1], False, [0, 0], 1, wanted
    )
