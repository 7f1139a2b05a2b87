"""The filter's recurrence over a whole batch, with a way back that was written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from learner.precision import compute_type
from learner.world_model.gru import Gru, GruWeights, elu_slope, product, weight_gradient


class Filtering(Function):
    """`RSSM.observe`'s loop: what is left of it when all that does not depend on the recurrence is done before.

    PyTorch's own way back is a hundred operations a row, each with a node to find, and a product a row for each weight;
    this one is fifteen a row, and one product for each weight.
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
            to_stoch, to_deter, to_output, bias = (
                weight.to(dtype) for weight in (weight_stoch, weight_deter, output, output_bias)
            )
            gru = Gru(GruWeights(*cell).to(dtype), steps, rows, from_action)
            new = from_action.new_empty
            x, y = new(from_action.shape), new(from_embed.shape)
            deter, deter_before = new(steps, rows, gru.size), new(steps, rows, gru.size)
            stoch, stoch_before, std, out = (new(steps, rows, n) for n in (size, size, size, 2 * size))
            s, h = stoch.new_zeros(rows, size), deter.new_zeros(rows, gru.size)
            parts = (keep, noise, from_action, from_embed, stoch_before, deter_before, x, y, out, std, stoch, deter)
            for step, at in enumerate(zip(*(part.unbind() for part in parts), strict=True)):
                keep_t, noise_t, from_action_t, from_embed_t, s_t, h_t, x_t, y_t, out_t, std_t, stoch_t, deter_t = at
                torch.mul(s, keep_t, out=s_t)
                torch.mul(h, keep_t, out=h_t)
                functional.elu_(torch.add(from_action_t, product(s_t, to_stoch.T), out=x_t))
                gru.forth(step, x_t, h_t, deter_t)
                functional.elu_(torch.add(from_embed_t, product(deter_t, to_deter.T), out=y_t))
                out_t.copy_(product(y_t, to_output.T, bias))
                # Of the whole rows: a part of each is taken number by number, several times as slow.
                torch.add(functional.softplus(out_t)[:, size:], min_std, out=std_t)
                torch.addcmul(out_t[:, :size], std_t, noise_t, out=stoch_t)
                s, h = stoch_t, deter_t
        ctx.gru, ctx.weights = gru, (to_stoch, to_deter, to_output)
        ctx.save_for_backward(keep, noise, x, y, out, deter, stoch_before, deter_before)
        return deter, out[..., :size].clone(), std, stoch

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of all but the mask and the noise."""
        to_deter_out, to_mean, to_std, to_stoch = gradients
        keep, noise, x, y, out, deter, stoch_before, deter_before = ctx.saved_tensors
        gru, (weight_stoch, weight_deter, output) = ctx.gru, ctx.weights
        size, dtype = noise.shape[-1], output.dtype
        gru.turn(deter_before)
        std_slope = out[..., size:].sigmoid()
        sample_slope = noise * std_slope
        to_out = torch.cat([to_mean + to_stoch, to_std * std_slope + to_stoch * sample_slope], -1)  # (L, B, 2 S)
        to_x, to_y = elu_slope(x), elu_slope(y)  # the slopes, and then the gradients, which lie where they lay
        carried_stoch, carried_deter = torch.zeros_like(noise[0]), torch.zeros_like(deter[0])
        parts = (keep, sample_slope, to_deter_out, to_out, to_x, to_y)
        at = list(zip(*(part.unbind() for part in parts), strict=True))
        for step in range(len(at) - 1, -1, -1):
            keep_t, sample_slope_t, to_deter_t, to_out_t, to_x_t, to_y_t = at[step]
            to_out_t[:, :size].add_(carried_stoch)
            to_out_t[:, size:].addcmul_(carried_stoch, sample_slope_t)
            to_y_t.mul_(product(to_out_t, output))
            gradient = carried_deter.add_(to_deter_t).add_(product(to_y_t, weight_deter))
            from_x, carried_deter = gru.back(step, gradient)
            to_x_t.mul_(from_x)
            carried_stoch = product(to_x_t, weight_stoch).mul_(keep_t)
            carried_deter.mul_(keep_t)
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
            *gru.weight_gradients(x, deter_before),
        )
