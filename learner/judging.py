"""What heads say of dreams, as a CPU learns it fastest: some states at a time, and each of them once.

A head's layers over all imagined states are passes over its largest tensors. What it says is one number, so its
gradient with respect to the state is that number's gradient times a derivative that is known already on the way there:
it is taken while the layers lie in the cache, and all that is kept. Weights' gradients are sums over states and wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.layers import Total, elu_backward, layers_of
from learner.networks import ScalarHead
from learner.precision import compute_type

ROWS = 2000  # states at a time

Layers = list[Tensor]  # what each layer saw of some states, (rows, inputs)


def judge(head: ScalarHead, feature: Tensor) -> Tensor:
    """The head at features (H, N, F) → (H, N); gradients are for the features alone."""
    return _judged(head, feature, None) if feature.device.type == "cpu" else head(feature)


def judge_and_learn(head: ScalarHead, feature: Tensor) -> tuple[Tensor, Tensor]:
    """`judge`, and the same at all steps but the last (H − 1, N), with gradients for the head's parameters alone."""
    if feature.device.type != "cpu":
        return head(feature), head(feature[:-1].detach())
    seen: list[Layers] = []
    value = _judged(head, feature, seen)
    return value, _Learning.apply(value[:-1].detach(), seen, *head.parameters())


def _judged(head: ScalarHead, feature: Tensor, seen: list[Layers] | None) -> Tensor:
    return _Judging.apply(feature, seen, *(parameter.detach() for parameter in head.parameters()))


class _Judging(Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, seen: list[Layers] | None, *parameters: Tensor) -> Tensor:
        """The head's values (H, N); what its layers saw joins `seen`."""
        flat = feature.flatten(0, -2)
        layers = layers_of(parameters, compute_type(feature))
        value, slope = flat.new_empty(len(flat)), torch.empty_like(flat, dtype=layers[0][0].dtype)
        for few, value_few, slope_few in zip(*(part.split(ROWS) for part in (flat, value, slope)), strict=True):
            values = _see(layers, few, value_few)
            first, *_ = _back(layers, values, torch.ones_like(values[0][:, :1]))
            torch.mm(first, layers[0][0], out=slope_few)
            if seen is not None:
                seen.append(values)
        ctx.save_for_backward(slope)
        return value.view(feature.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features."""
        (slope,) = ctx.saved_tensors
        return gradient.unsqueeze(-1) * slope.view(*gradient.shape, -1), *[None] * (len(ctx.needs_input_grad) - 1)


class _Learning(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, seen: list[Layers], *parameters: Tensor) -> Tensor:
        """Values (…) of the first of the states that were seen, for the parameters' sake."""
        ctx.seen = seen
        ctx.save_for_backward(*parameters)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of weights and biases."""
        layers = layers_of(ctx.saved_tensors, ctx.seen[0][0].dtype)
        total = Total()
        for gradient_few, values in zip(gradient.flatten().split(ROWS), ctx.seen, strict=False):
            values = [value[: len(gradient_few)] for value in values]
            backs = _back(layers, values, gradient_few.to(values[0].dtype)[:, None])
            parts = [(back.T @ value, back.sum(0)) for back, value in zip(backs, values, strict=True)]
            total.add([each for part in parts for each in part])
        return None, None, *total.gradients


def _see(layers: Sequence[tuple[Tensor, Tensor]], feature: Tensor, value: Tensor) -> Layers:
    """The head at features (rows, F), into `value` (rows)."""
    *hidden, (last, last_bias) = layers
    values = [feature.to(last.dtype)]
    for weight, bias in hidden:
        values.append(functional.elu_(torch.mm(values[-1], weight.T).add_(bias)))
    value.copy_(torch.addmv(last_bias, values[-1], last[0]))
    return values


def _back(layers: Sequence[tuple[Tensor, Tensor]], values: Layers, gradient: Tensor) -> list[Tensor]:
    """Gradients (rows, outputs) of what each layer put out before its activation, given the last one's (rows, 1)."""
    gradients = [gradient]
    for (weight, _), value in zip(layers[:0:-1], values[:0:-1], strict=True):
        gradients.append(elu_backward(torch.mm(gradients[-1], weight), value))
    return gradients[::-1]
