"""The filter's recurrence over a whole batch, with a way back that was written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.layers import elu_slope
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


class Filtering(Function):
    """`RSSM.observe`'s loop: what is left of it when all that does not depend on the recurrence is done before.

    PyTorch's own way back is a hundred operations a row, each with a node to find, and a product a row for each weight;
    this one is nineteen a row, and one product for each weight.
    """

    @staticmethod
    def forward(
        ctx: Any,
        min_std: float,
        from_action: Tensor,  # (L, B, hidden)
        from_embed: Tensor,  # (L, B, hidden)
        keep: Tensor,  # (L, B, 1)
        noise: Tensor,  # (L, B, S)
        weight_stoch: Tensor,  # (hidden, S)
        weight_deter: Tensor,  # (hidden, D)
        output: Tensor,  # (2 S, hidden)
        output_bias: Tensor,  # (2 S)
        *cell: Tensor,  # as `GruWeights`
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Deterministic parts (L, B, D), means, standard deviations and samples (L, B, S)."""
        steps, rows, size = *from_action.shape[:2], noise.shape[-1]
        dtype = compute_type(from_action)
        with torch.autocast(from_action.device.type, enabled=False):
            gru = Gru(GruWeights(*cell), dtype, steps, rows, from_action)
            stoch_to_x, deter_to_y, to_out = (turned(each, dtype) for each in (weight_stoch, weight_deter, output))
            new = from_action.new_empty
            x, y = new(from_action.shape), new(from_embed.shape)
            std, out = new(steps, rows, size), new(steps, rows, 2 * size)
            sizes = [size, gru.size]
            before, state = (new(steps, rows, sum(sizes)) for _ in range(2))  # [stoch, deter]
            parts = (keep, noise, from_action, from_embed, before, *before.split(sizes, -1), x, y, out)
            results = (out[..., :size], std, state, *state.split(sizes, -1))
            carried = state.new_zeros(rows, sum(sizes))
            for step, (at, results_t) in enumerate(zip(by_step(*parts), by_step(*results), strict=True)):
                keep_t, noise_t, from_action_t, from_embed_t, before_t, s_t, h_t, x_t, y_t, out_t = at
                mean_t, std_t, state_t, stoch_t, deter_t = results_t
                torch.mul(carried, keep_t, out=before_t)
                functional.elu_(affine(from_action_t, s_t, stoch_to_x, out=x_t))
                gru.forth(step, x_t, h_t, deter_t)
                functional.elu_(affine(from_embed_t, deter_t, deter_to_y, out=y_t))
                affine(output_bias, y_t, to_out, out=out_t)
                # Of the whole rows: a part of each is taken number by number, several times as slow.
                torch.add(functional.softplus(out_t)[:, size:], min_std, out=std_t)
                torch.addcmul(mean_t, std_t, noise_t, out=stoch_t)
                carried = state_t
        stoch, deter = state.split(sizes, -1)
        ctx.gru, ctx.weights = gru, tuple(each.to(dtype) for each in (weight_stoch, weight_deter, output))
        ctx.save_for_backward(keep, noise, x, y, out, deter, before)
        return deter, out[..., :size].clone(), std, stoch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of all but the mask and the noise."""
        to_deter_out, to_mean, to_std, to_stoch = gradients
        keep, noise, x, y, out, deter, before = ctx.saved_tensors
        gru, (weight_stoch, weight_deter, output) = ctx.gru, ctx.weights
        size, dtype = noise.shape[-1], output.dtype
        stoch_before, deter_before = before.split([size, gru.size], -1)
        std_slope = out.sigmoid()[..., size:]
        sample_slope = torch.stack([torch.ones_like(noise), noise * std_slope], -2)  # of mean and raw, (L, B, 2, S)
        to_out = torch.stack([to_mean, to_std * std_slope], -2).addcmul_(to_stoch.unsqueeze(-2), sample_slope)
        to_x, to_y = elu_slope(x), elu_slope(y)  # the slopes, and then the gradients, which lie where they lay
        to_gates = Gates.within(x.new_empty(*deter.shape[:2], 4 * gru.size))
        gates = to_gates.by_step()
        carried_stoch, carried_deter = torch.zeros_like(noise[0]), torch.zeros_like(deter[0])
        at = by_step(keep, sample_slope, deter, to_deter_out, to_out, to_out.flatten(-2), to_x, to_y)
        for step in range(len(at) - 1, -1, -1):
            keep_t, sample_slope_t, deter_t, to_deter_t, to_halves_t, to_out_t, to_x_t, to_y_t = at[step]
            to_halves_t.addcmul_(carried_stoch.unsqueeze(1), sample_slope_t)
            to_y_t.mul_(product(to_out_t, output))
            carried_deter.add_(to_deter_t)
            affine(carried_deter, to_y_t, weight_deter, out=carried_deter)
            from_x, carried_deter = gru.back(step, carried_deter, deter_t, gates[step])
            to_x_t.mul_(from_x)
            carried_stoch = product(to_x_t, weight_stoch).mul_(keep_t)
            carried_deter.mul_(keep_t)
        to_out = to_out.flatten(-2)
        return (
            None,
            to_x,
            to_y,
            None,
            None,
            weight_gradient(to_x, stoch_before, dtype),
            weight_gradient(to_y, deter, dtype),
            weight_gradient(to_out, y, dtype),
            to_out.sum((0, 1)),
            *gru.weight_gradients(to_gates, x, deter_before),
        )
