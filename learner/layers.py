"""Parameters of layers in a row, and their gradients, where a way back is written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pairs(parameters: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Weights and biases, taking turns → pairs of them."""
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def layers_of(parameters: Sequence[Tensor], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """`pairs` in another type."""
    return [(weight.to(dtype), bias.to(dtype)) for weight, bias in pairs(parameters)]


def elu_slope(result: Tensor) -> Tensor:
    """The derivative of ELU where its result is this."""
    return result.clamp(max=0.0).add_(1.0)


def elu_backward(gradient: Tensor, result: Tensor) -> Tensor:
    """The gradient of ELU's result → that of its argument, in place."""
    return torch.ops.aten.elu_backward.grad_input(gradient, 1.0, 1.0, 1.0, True, result, grad_input=gradient)


class Total:
    """Gradients that are summed over parts of a batch, in float32 if they come in less."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def add(self, gradients: list[Tensor]) -> None:
        """Adds those of one more part."""
        if self.gradients:
            torch._foreach_add_(self.gradients, gradients)
        else:
            self.gradients = [each.to(torch.promote_types(each.dtype, torch.float32)) for each in gradients]
