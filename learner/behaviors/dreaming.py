"""Dreaming ahead by an actor's own choices, with a way back that was written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.behaviors.actor import Actor
from learner.layers import elu_backward, pairs
from learner.precision import compute_type
from learner.world_model.gru import (
    Gates,
    Gru,
    GruWeights,
    affine,
    by_step,
    product,
    turned,
    weight_gradient,
)
from learner.world_model.rssm import RSSM
from learner.world_model.state import State


class _Constants(NamedTuple):
    """What is no tensor: the prior's least standard deviation, and the actor's form."""

    min_std: float
    mean_scale: float
    std_shift: float
    actor_min_std: float


def dream(rssm: RSSM, actor: Actor, start: State, noise: Tensor, action_noise: Tensor) -> tuple[State, Tensor, Tensor]:
    """What `RSSM.imagine` computes, for gradients that reach the actor alone.

    Args:
        rssm: predicts; asked for no gradients.
        actor: chooses, and learns.
        start: (N, …), detached.
        noise: standard normal (H, N, S).
        action_noise: standard normal (H, N, A).

    Returns:
        States (H, N, …), their features (H, N, F), and the actions (H, N, A) that led to them. Gradients flow through
        the features.
    """
    layers = [layer for layer in actor.network if isinstance(layer, nn.Linear)]
    prior = (rssm.prior_input, rssm.prior_hidden, rssm.prior_output)
    feature, mean, std, action = _Dreaming.apply(
        _Constants(rssm.min_std, actor.mean_scale, actor.std_shift, actor.min_std),
        start.feature,
        noise,
        action_noise,
        [parameter.detach() for layer in prior for parameter in (layer.weight, layer.bias)],
        GruWeights(
            *(getattr(rssm.cell, f"{kind}_{end}").detach() for kind in ("weight", "bias") for end in ("ih", "hh"))
        ),
        *(parameter for layer in layers for parameter in (layer.weight, layer.bias)),
    )
    stoch, deter = feature.split([rssm.stoch_size, rssm.deter_size], -1)
    return State(deter, mean, std, stoch), feature, action


class _Dreaming(Function):
    """The loop of imagination; the actor's own gradients are taken after it, one product for each of its weights."""

    @staticmethod
    def forward(
        ctx: Any,
        constants: _Constants,
        start: Tensor,  # (N, F)
        noise: Tensor,  # (H, N, S)
        action_noise: Tensor,  # (H, N, A)
        prior: list[Tensor],  # weights and biases of the prior's three layers
        cell: GruWeights,
        *actor: Tensor,  # weights and biases of the actor's layers
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (H, N, F), means, standard deviations (H, N, S) and actions (H, N, A)."""
        dtype = compute_type(start)
        with torch.autocast(start.device.type, enabled=False):
            choices = _Choices(constants, actor, dtype, action_noise)
            predictions = _Predictions(constants.min_std, prior, cell, dtype, start, noise)
            for step in range(len(noise)):
                predictions.forth(step, choices.forth(step, predictions.features[step]))
        ctx.choices, ctx.predictions = choices, predictions
        mean = predictions.out[..., : noise.shape[-1]]
        ctx.mark_non_differentiable(mean, predictions.std, choices.action)
        return predictions.feature[1:], mean, predictions.std, choices.action

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
        """Gradients of the actor's weights and biases."""
        to_action = ctx.predictions.back(gradient)
        return (*[None] * 6, *ctx.choices.back(to_action, ctx.predictions.feature[:-1]))


class _Choices:
    """What the actor chose, H times."""

    def __init__(
        self, constants: _Constants, parameters: Sequence[Tensor], dtype: torch.dtype, action_noise: Tensor
    ) -> None:
        new, (steps, rows, _) = action_noise.new_empty, action_noise.shape
        self.constants, self.noise = constants, action_noise
        self.weights = [weight.to(dtype) for weight in parameters[::2]]
        *self.layers, self.last = ((turned(weight, dtype), bias) for weight, bias in pairs(parameters))
        self.hidden = [new(steps, rows, len(bias)) for _, bias in self.layers]
        self.hidden_steps = [[layer[step] for layer in self.hidden] for step in range(steps)]
        self.output = new(rows, len(parameters[-1]))
        # Apart from the output, in which each half would be taken number by number.
        self.mean, self.raw, self.action = (torch.empty_like(action_noise) for _ in range(3))
        self.steps = by_step(action_noise, self.mean, self.raw, self.action)

    def forth(self, step: int, feature: Tensor) -> Tensor:
        """The actions (N, A) at features (N, F)."""
        noise, mean, raw, action = self.steps[step]
        scale, shift, min_std = self.constants.mean_scale, self.constants.std_shift, self.constants.actor_min_std
        value = feature
        for (matrix, bias), result in zip(self.layers, self.hidden_steps[step], strict=True):
            value = functional.elu_(affine(bias, value, matrix, out=result))
        matrix, bias = self.last
        center, spread = affine(bias, value, matrix, out=self.output).chunk(2, -1)
        std = functional.softplus(torch.add(spread, shift, out=raw)).add_(min_std)
        if scale > 0:
            center = torch.div(center, scale, out=mean).tanh_() * scale
        return torch.addcmul(center, std, noise, out=action).tanh_()

    def back(self, to_action: Tensor, feature: Tensor) -> list[Tensor]:
        """Gradients of actions (H, N, A), and the features (H, N, F) they were chosen at → the parameters'."""
        to_mean = to_action * (1.0 - self.action.square())
        to_raw = to_mean * self.noise * self.raw.sigmoid()
        if self.constants.mean_scale > 0:
            to_mean = to_mean * (1.0 - self.mean.square())
        back = torch.cat([to_mean, to_raw], -1)  # (H, N, 2 A)
        gradients: list[Tensor] = []
        values = [feature, *self.hidden]
        for weight, value in zip(self.weights[::-1], values[::-1], strict=True):
            gradients = [weight_gradient(back, value, weight.dtype), back.sum((0, 1)), *gradients]
            if value is not feature:
                back = elu_backward(product(back.flatten(0, 1), weight).view_as(value), value)
        return gradients


class _Predictions:
    """What the prior made of choices, H times."""

    def __init__(
        self,
        min_std: float,
        parameters: Sequence[Tensor],
        cell: GruWeights,
        dtype: torch.dtype,
        start: Tensor,
        noise: Tensor,
    ) -> None:
        new, (steps, rows, size) = start.new_empty, noise.shape
        self.min_std, self.size, self.noise = min_std, size, noise
        self.weights = [weight.to(dtype) for weight in parameters[::2]]
        self.layers = [(turned(weight, dtype), bias) for weight, bias in pairs(parameters)]
        self.gru = Gru(cell, dtype, steps, rows, start)
        self.feature = new(steps + 1, rows, start.shape[-1])  # [stoch, deter]; the first is the start
        self.feature[0] = start
        self.features = self.feature.unbind()
        self.x, self.y = (new(steps, rows, len(bias)) for _, bias in self.layers[:2])
        self.out, self.std = new(steps, rows, 2 * size), torch.empty_like(noise)
        halves = [half for part in (self.feature[:-1], self.feature[1:]) for half in self.halves(part)]
        self.steps = by_step(*halves, self.x, self.y, self.out, self.out[..., :size], self.std, noise)

    def halves(self, feature: Tensor) -> Sequence[Tensor]:
        """The stochastic and the deterministic part of features (…, F)."""
        return feature.split([self.size, self.gru.size], -1)

    def forth(self, step: int, action: Tensor) -> None:
        """Where actions (N, A) lead."""
        stoch, deter, next_stoch, next_deter, x, y, out, mean, std, noise = self.steps[step]
        (to_x, x_bias), (to_y, y_bias), (to_out, out_bias) = self.layers
        functional.elu_(affine(x_bias, torch.cat([stoch, action], -1), to_x, out=x))
        self.gru.forth(step, x, deter, next_deter)
        functional.elu_(affine(y_bias, next_deter, to_y, out=y))
        affine(out_bias, y, to_out, out=out)
        # Of the whole rows: a part of each is taken number by number, several times as slow.
        torch.add(functional.softplus(out)[:, self.size :], self.min_std, out=std)
        torch.addcmul(mean, std, noise, out=next_stoch)

    def back(self, gradient: Tensor) -> Tensor:
        """Gradients of features (H, N, F) → those of the actions (H, N, A) that led to them."""
        rows, size = gradient.shape[1], self.size
        from_given, from_y, from_out = self.weights
        slopes = self.noise * self.out.sigmoid()[..., size:]  # of the standard deviation's half
        gates = Gates.within(gradient.new_empty(rows, 4 * self.gru.size))  # each step's in the same place
        to_stoch, to_deter = torch.zeros_like(self.noise[0]), gradient.new_zeros(rows, self.gru.size)
        actions: list[Tensor] = []
        at = by_step(*self.halves(gradient), slopes, self.x, self.y, self.halves(self.feature[1:])[1])
        for step in range(len(at) - 1, -1, -1):
            to_stoch_t, to_deter_t, slope, x, y, deter = at[step]
            to_stoch = to_stoch + to_stoch_t
            to_y = elu_backward(product(torch.cat([to_stoch, to_stoch * slope], -1), from_out), y)
            to_deter.add_(to_deter_t)
            affine(to_deter, to_y, from_y, out=to_deter)
            to_x, to_deter = self.gru.back(step, to_deter, deter, gates)
            to_stoch, to_action = product(elu_backward(to_x, x), from_given).tensor_split([size], -1)
            actions.append(to_action)
        return torch.stack(actions[::-1])
