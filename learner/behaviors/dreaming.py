"""Dreaming ahead by an actor's own choices, with a way back that was written by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.behaviors.actor import Actor
from learner.precision import compute_type
from learner.world_model.gru import Gru, GruWeights, elu_slope, product, weight_gradient
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
        steps, rows, size = noise.shape
        action_size = action_noise.shape[-1]
        dtype = compute_type(start)
        with torch.autocast(start.device.type, enabled=False):
            layers = [parameter.to(dtype) for parameter in actor]
            prior = [parameter.to(dtype) for parameter in prior]
            gru = Gru(cell.to(dtype), steps, rows, start)
            new = start.new_empty
            feature = new(steps + 1, rows, start.shape[-1])  # what the policy sees, and where it leads
            feature[0] = start
            hidden = [new(steps, rows, len(weight)) for weight in layers[:-2:2]]
            choice, given = new(steps, rows, 2 * action_size), new(steps, rows, size + action_size)
            x, y = new(steps, rows, len(prior[0])), new(steps, rows, len(prior[2]))
            out, std = new(steps, rows, 2 * size), new(steps, rows, size)
            features = feature.unbind()
            parts = (noise, action_noise, choice, given, x, y, out, std, *hidden)
            for step, at in enumerate(zip(*(part.unbind() for part in parts), strict=True)):
                noise_t, action_noise_t, choice_t, given_t, x_t, y_t, out_t, std_t, *hidden_t = at
                seen = features[step]
                value = seen
                for layer, result in enumerate(hidden_t):
                    result.copy_(product(value, layers[2 * layer].T, layers[2 * layer + 1]))
                    value = functional.elu_(result)
                choice_t.copy_(product(value, layers[-2].T, layers[-1]))
                mean, raw = choice_t.chunk(2, -1)
                if constants.mean_scale > 0:
                    torch.div(mean, constants.mean_scale, out=mean).tanh_()  # kept so: its slope is 1 − tanh²
                    mean = mean * constants.mean_scale
                action_std = functional.softplus(raw + constants.std_shift).add_(constants.actor_min_std)
                given_t[:, :size].copy_(seen[:, :size])
                torch.addcmul(mean, action_std, action_noise_t, out=given_t[:, size:]).tanh_()
                x_t.copy_(product(given_t, prior[0].T, prior[1]))
                deter = features[step + 1][:, size:]
                gru.forth(step, functional.elu_(x_t), seen[:, size:], deter)
                y_t.copy_(product(deter, prior[2].T, prior[3]))
                out_t.copy_(product(functional.elu_(y_t), prior[4].T, prior[5]))
                # Of the whole rows: a part of each is taken number by number, several times as slow.
                torch.add(functional.softplus(out_t)[:, size:], constants.min_std, out=std_t)
                torch.addcmul(out_t[:, :size], std_t, noise_t, out=features[step + 1][:, :size])
        action, mean = given[..., size:].clone(), out[..., :size].clone()
        ctx.constants, ctx.gru, ctx.prior, ctx.layers = constants, gru, prior, layers
        ctx.save_for_backward(feature, noise, action_noise, choice, given, x, y, out, *hidden)
        ctx.mark_non_differentiable(mean, std, action)
        return feature[1:], mean, std, action

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> Any:
        """Gradients of the actor's weights and biases."""
        feature, noise, action_noise, choice, given, x, y, out, *hidden = ctx.saved_tensors
        gru, prior, layers = ctx.gru, ctx.prior, ctx.layers
        size, dtype = noise.shape[-1], layers[0].dtype
        before = feature[:-1]
        gru.turn(before[..., size:])
        std_slope = noise * out[..., size:].sigmoid()
        to_out = torch.empty_like(out)
        to_choice, action_slope = _choice_slopes(ctx.constants, choice, given[..., size:], action_noise)
        to_x, to_y = elu_slope(x), elu_slope(y)
        carried = torch.zeros_like(gradient[0])  # (N, F)
        parts = (gradient, std_slope, to_out, to_choice, action_slope, to_x, to_y)
        at = list(zip(*(part.unbind() for part in parts), strict=True))
        for step in range(len(at) - 1, -1, -1):
            gradient_t, std_slope_t, to_out_t, to_choice_t, action_slope_t, to_x_t, to_y_t = at[step]
            carried.add_(gradient_t)
            to_stoch, to_deter = carried[:, :size], carried[:, size:]
            to_out_t[:, :size].copy_(to_stoch)
            torch.mul(to_stoch, std_slope_t, out=to_out_t[:, size:])
            to_y_t.mul_(product(to_out_t, prior[4]))
            to_deter.add_(product(to_y_t, prior[2]))
            from_x, to_deter_before = gru.back(step, to_deter)
            to_given = product(to_x_t.mul_(from_x), prior[0])  # (N, S + A)
            to_action = to_given[:, size:] * action_slope_t
            to_choice_t.unflatten(-1, (2, -1)).mul_(to_action.unsqueeze(1))
            carried = torch.cat([to_given[:, :size], to_deter_before], -1)
        gradients: list[Tensor] = []
        for layer in range(len(hidden), -1, -1):
            value = before if layer == 0 else hidden[layer - 1]
            gradients = [weight_gradient(to_choice, value, dtype), to_choice.sum((0, 1)), *gradients]
            if layer > 0:
                to_choice = product(to_choice.flatten(0, 1), layers[2 * layer]).view_as(value).mul_(elu_slope(value))
        return (*[None] * 6, *gradients)


def _choice_slopes(
    constants: _Constants, choice: Tensor, action: Tensor, action_noise: Tensor
) -> tuple[Tensor, Tensor]:
    """How the action before its tanh answers to the actor's output (H, N, 2 A), and the tanh's own slope (H, N, A)."""
    mean, raw = choice.chunk(2, -1)
    to_mean = 1.0 - mean.square() if constants.mean_scale > 0 else torch.ones_like(mean)
    to_raw = action_noise * torch.sigmoid(raw + constants.std_shift)
    return torch.cat([to_mean, to_raw], -1), 1.0 - action.square()
