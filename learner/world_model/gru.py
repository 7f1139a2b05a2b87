"""A GRU over many steps whose way back is written by hand: one product of weights' gradients for all steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

tanh_backward = torch.ops.aten.tanh_backward.grad_input
sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def product(value: Tensor, matrix: Tensor) -> Tensor:
    """value (N, I) @ matrix (I, O), computed in the matrix's type and given in the value's."""
    return torch.mm(value.to(matrix.dtype), matrix).to(value.dtype)


def affine(addend: Tensor, value: Tensor, matrix: Tensor, out: Tensor) -> Tensor:
    """addend (O) or (N, O) + value (N, I) @ matrix (I, O) into `out`; the product in the matrix's type."""
    if out.dtype == matrix.dtype:
        if addend.dim() == 1 and out.is_cpu:  # added in the cache; `addmm` would fill cold memory with it first
            return torch.mm(value, matrix, out=out).add_(addend)
        return torch.addmm(addend, value, matrix, out=out)
    return torch.add(addend, torch.mm(value.to(matrix.dtype), matrix), out=out)


def turned(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A layer's weight (O, I) as (I, O), laid out so: with few rows products take half the time."""
    return weight.to(dtype).T.contiguous()


def weight_gradient(gradient: Tensor, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ over all leading axes of gradient (..., O) ⊗ value (..., I) → (O, I)."""
    return (gradient.flatten(0, -2).to(dtype).T @ value.flatten(0, -2).to(dtype)).to(gradient.dtype)


def by_step(*parts: Tensor) -> list[tuple[Tensor, ...]]:
    """Tensors (T, …) → for each of T steps what belongs to it."""
    return list(zip(*(part.unbind() for part in parts), strict=True))


class GruWeights(NamedTuple):
    """Those of `nn.GRUCell`: gates are in the order reset, update, new."""

    input: Tensor  # (3 D, I)
    hidden: Tensor  # (3 D, D)
    input_bias: Tensor  # (3 D)
    hidden_bias: Tensor  # (3 D)


class Gates(NamedTuple):
    """What a step makes of its gates, or gradients of these before their activations.

    What the input has part in is one block, and what the hidden state has part in, as products want them.

    Attributes:
        new: (..., D), of the new gate; its gradient is also that of what the input adds to it.
        reset: (..., D).
        update: (..., D).
        from_hidden: (..., D), what the hidden state adds to the new gate: U h + c.
        of_input: (..., 3 D), the first three.
        of_hidden: (..., 3 D), the last three.
        of_both: (..., 2 D), reset and update.
    """

    new: Tensor
    reset: Tensor
    update: Tensor
    from_hidden: Tensor
    of_input: Tensor
    of_hidden: Tensor
    of_both: Tensor

    @classmethod
    def within(cls, memory: Tensor) -> Gates:
        """Places in (..., 4 D)."""
        size = memory.shape[-1] // 4
        new, reset, update, from_hidden = memory.split(size, -1)
        blocks = memory[..., : 3 * size], memory[..., size:], memory[..., size : 3 * size]
        return cls(new, reset, update, from_hidden, *blocks)

    def by_step(self) -> list[Gates]:
        """Those of T steps (T, …) → each step's."""
        return [Gates(*parts) for parts in by_step(*self)]


class Gru:
    """T steps of h' = n + z · (h − n), n = tanh(W x + b + r · (U h + c)), and back.

    Args:
        weights: of the cell.
        dtype: what products are computed in.
        steps: T.
        rows: N.
        like: a state, for type and device.
    """

    def __init__(self, weights: GruWeights, dtype: torch.dtype, steps: int, rows: int, like: Tensor) -> None:
        self.size = size = weights.hidden.shape[1]
        self.dtype = dtype
        new_first = torch.cat([weights.input[2 * size :], weights.input[: 2 * size]])
        self.input_to_gates, self.hidden_to_gates = turned(new_first, dtype), turned(weights.hidden, dtype)
        self.back_to_input, self.back_to_hidden = new_first.to(dtype), weights.hidden.to(dtype)
        self.new_bias = weights.hidden_bias[2 * size :]
        self.bias = torch.cat([weights.input_bias[2 * size :], (weights.input_bias + weights.hidden_bias)[: 2 * size]])
        self.steps = Gates.within(like.new_empty(steps, rows, 4 * size)).by_step()

    def forth(self, step: int, value: Tensor, hidden: Tensor, out: Tensor) -> None:
        """Step t: input (N, I) and hidden state (N, D) → the next hidden state, into `out`."""
        new, reset, update, from_hidden, of_input, of_hidden, of_both = self.steps[step]
        affine(self.bias, value, self.input_to_gates, out=of_input)
        from_hidden.copy_(self.new_bias)
        affine(of_hidden, hidden, self.hidden_to_gates, out=of_hidden)
        of_both.sigmoid_()
        torch.addcmul(new, reset, from_hidden, out=new).tanh_()
        torch.lerp(new, hidden, update, out=out)

    def back(self, step: int, gradient: Tensor, result: Tensor, out: Gates) -> tuple[Tensor, Tensor]:
        """Step t: the gradient (N, D) of its result (N, D) → the input's (N, I) and the hidden state's (N, D).

        The gates' gradients are left in `out`; the one given is used up.
        """
        new, reset, update, from_hidden, *_ = self.steps[step]
        to_hidden = gradient * update
        to_new = gradient.sub_(to_hidden)
        tanh_backward(to_new, new, grad_input=out.new)
        torch.sub(result, new, out=out.update).mul_(to_new)  # h' − n = z · (h − n)
        torch.mul(out.new, from_hidden, out=out.reset)
        sigmoid_backward(out.reset, reset, grad_input=out.reset)
        torch.mul(out.new, reset, out=out.from_hidden)
        affine(to_hidden, out.of_hidden, self.back_to_hidden, out=to_hidden)
        return product(out.of_input, self.back_to_input), to_hidden

    def weight_gradients(self, gradients: Gates, values: Tensor, before: Tensor) -> GruWeights:
        """Of all steps' gates' gradients, their inputs (T, N, I) and the hidden states (T, N, D) they began with."""
        size, of_input, of_hidden = self.size, gradients.of_input, gradients.of_hidden
        matrix, bias = weight_gradient(of_input, values, self.dtype), of_input.sum((0, 1))
        return GruWeights(
            torch.cat([matrix[size:], matrix[:size]]),
            weight_gradient(of_hidden, before, self.dtype),
            torch.cat([bias[size:], bias[:size]]),
            of_hidden.sum((0, 1)),
        )
