"""What heads say of dreams, as a CPU learns it fastest: some states at a time, and each of them once.

A head's layers over all imagined states are passes over its largest tensors. Its value of a dream is wanted twice, for
gradients of the states and of its own weights: the same numbers, with two ways back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.layers import Total, layers_of
from learner.networks import ScalarHead
from learner.precision import compute_type

ROWS = 500  # states at a time


def judge(head: ScalarHead, feature: Tensor) -> Tensor:
    """The head at features (H, N, F) → (H, N); gradients are for the features alone."""
    return _seen(head, feature)[0] if feature.device.type == "cpu" else head(feature)


def judge_and_learn(head: ScalarHead, feature: Tensor) -> tuple[Tensor, Tensor]:
    """`judge`, and the same at all steps but the last (H − 1, N), with gradients for the head's parameters alone."""
    if feature.device.type != "cpu":
        return head(feature), head(feature[:-1].detach())
    value, hidden = _seen(head, feature)
    return value, _Learning.apply(value[:-1].detach(), feature.detach(), hidden, *head.parameters())


def _seen(head: ScalarHead, feature: Tensor) -> tuple[Tensor, list[Tensor]]:
    value, *hidden = _Seeing.apply(feature, *(parameter.detach() for parameter in head.parameters()))
    return value, hidden


class _Seeing(Function):
    @staticmethod
    def forward(ctx: Any, feature: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        """The head's values (H, N), and its hidden layers' (H · N, units), which have no gradients."""
        flat = feature.flatten(0, -2)
        layers = layers_of(parameters, compute_type(feature))
        hidden = [weight.new_empty(len(flat), len(weight)) for weight, _ in layers[:-1]]
        value = feature.new_empty(feature.shape[:-1])
        weight, bias = layers[-1]
        parts = (part.split(ROWS) for part in (flat, value.flatten(), *hidden))
        for few, value_few, *hidden_few in zip(*parts, strict=True):
            seen = few.to(weight.dtype)
            for layer, result in zip(layers[:-1], hidden_few, strict=True):
                seen = functional.elu_(torch.addmm(layer[1], seen, layer[0].T, out=result))
            value_few.copy_(torch.addmv(bias, seen, weight[0]))
        ctx.weights = [weight for weight, _ in layers]
        ctx.save_for_backward(*hidden)
        ctx.mark_non_differentiable(*hidden)
        ctx.dtype = feature.dtype
        return value, *hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features."""
        *weights, last = ctx.weights
        hidden = ctx.saved_tensors
        result = torch.empty(gradient.numel(), ctx.weights[0].shape[1], dtype=ctx.dtype)
        parts = (part.split(ROWS) for part in (gradient.flatten(), result, *hidden))
        for gradient_few, result_few, *hidden_few in zip(*parts, strict=True):
            back = gradient_few.to(last.dtype)[:, None] * last
            for weight, seen in zip(weights[::-1], hidden_few[::-1], strict=True):
                back = _elu_backward(back, seen) @ weight
            result_few.copy_(back)
        return result.view(*gradient.shape, -1), *[None] * (len(ctx.needs_input_grad) - 1)


class _Learning(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, feature: Tensor, hidden: list[Tensor], *parameters: Tensor) -> Tensor:
        """Values (…) that were seen at the first of the features (…, F), for the parameters' sake."""
        ctx.hidden, ctx.dtype = hidden, compute_type(feature)
        ctx.save_for_backward(feature, *parameters)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of weights and biases."""
        feature, *parameters = ctx.saved_tensors
        weights = [weight for weight, _ in layers_of(parameters, ctx.dtype)]
        flat, rows = feature.flatten(0, -2), gradient.numel()
        parts = [part[:rows].split(ROWS) for part in (flat, *ctx.hidden)]
        total = Total()
        for gradient_few, feature_few, *hidden_few in zip(gradient.flatten().split(ROWS), *parts, strict=True):
            back = gradient_few.to(ctx.dtype)[:, None]
            values = [feature_few.to(ctx.dtype), *hidden_few]
            gradients: list[Tensor] = []
            for layer in range(len(weights) - 1, -1, -1):
                gradients = [back.T @ values[layer], back.sum(0), *gradients]
                if layer > 0:
                    back = _elu_backward(back @ weights[layer], values[layer])
            total.add(gradients)
        return None, None, None, *total.gradients


def _elu_backward(gradient: Tensor, result: Tensor) -> Tensor:
    return torch.ops.aten.elu_backward(gradient, 1.0, 1.0, 1.0, True, result)
