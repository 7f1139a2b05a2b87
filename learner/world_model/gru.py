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


class GateGradients(NamedTuple):
    """Gradients of gates before their activations; what the input has part in and what the hidden state has are one
    block each, as products want them.

    Attributes:
        new: (..., D), of the new gate and what the input adds to it.
        reset: (..., D).
        update: (..., D).
        from_hidden: (..., D), of what the hidden state adds to the new gate.
        of_input: (..., 3 D), the first three.
        of_hidden: (..., 3 D), the last three.
    """

    new: Tensor
    reset: Tensor
    update: Tensor
    from_hidden: Tensor
    of_input: Tensor
    of_hidden: Tensor

    @classmethod
    def within(cls, memory: Tensor) -> GateGradients:
        """Places in (..., 4 D)."""
        size = memory.shape[-1] // 4
        new, reset, update, from_hidden = memory.split(size, -1)
        return cls(new, reset, update, from_hidden, memory[..., : 3 * size], memory[..., size:])


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
        self.input_to_gates = turned(weights.input, dtype)  # (I, 3 D)
        self.hidden_to_gates, self.hidden_to_new = turned(weights.hidden, dtype).split([2 * size, size], 1)
        self.new_bias = weights.hidden_bias[2 * size :]
        self.bias = weights.input_bias.clone()
        self.bias[: 2 * size] += weights.hidden_bias[: 2 * size]
        self.back_to_input = torch.cat([weights.input[2 * size :], weights.input[: 2 * size]]).to(dtype)  # `of_input`
        self.back_to_hidden = weights.hidden.to(dtype)
        self.gates = like.new_empty(steps, rows, 3 * size)  # reset, update, new
        self.from_hidden = like.new_empty(steps, rows, size)  # U h + c of the new gate
        self.steps = by_step(self.gates, self.gates[..., : 2 * size], *self.gates.split(size, -1), self.from_hidden)

    def forth(self, step: int, value: Tensor, hidden: Tensor, out: Tensor) -> None:
        """Step t: input (N, I) and hidden state (N, D) → the next hidden state, into `out`."""
        all_gates, gates, reset, update, new, from_hidden = self.steps[step]
        multiplied = hidden.to(self.dtype)
        affine(self.bias, value, self.input_to_gates, out=all_gates)
        affine(gates, multiplied, self.hidden_to_gates, out=gates).sigmoid_()
        affine(self.new_bias, multiplied, self.hidden_to_new, out=from_hidden)
        torch.addcmul(new, reset, from_hidden, out=new).tanh_()
        torch.lerp(new, hidden, update, out=out)

    def back(self, step: int, gradient: Tensor, result: Tensor, out: GateGradients) -> tuple[Tensor, Tensor]:
        """Step t: the gradient (N, D) of its result (N, D) → the input's (N, I) and the hidden state's (N, D).

        The gates' gradients are left in `out`; the one given is used up.
        """
        _, _, reset, update, new, from_hidden = self.steps[step]
        to_hidden = gradient * update
        to_new = gradient.sub_(to_hidden)
        tanh_backward(to_new, new, grad_input=out.new)
        torch.sub(result, new, out=out.update).mul_(to_new)  # h' − n = z · (h − n)
        torch.mul(out.new, from_hidden, out=out.reset)
        sigmoid_backward(out.reset, reset, grad_input=out.reset)
        torch.mul(out.new, reset, out=out.from_hidden)
        affine(to_hidden, out.of_hidden, self.back_to_hidden, out=to_hidden)
        return product(out.of_input, self.back_to_input), to_hidden

    def weight_gradients(self, gradients: GateGradients, values: Tensor, before: Tensor) -> GruWeights:
        """Of all steps' gates' gradients, their inputs (T, N, I) and the hidden states (T, N, D) they began with."""
        size, (*_, of_input, of_hidden) = self.size, gradients
        matrix, bias = weight_gradient(of_input, values, self.dtype), of_input.sum((0, 1))
        return GruWeights(
            torch.cat([matrix[size:], matrix[:size]]),
            weight_gradient(of_hidden, before, self.dtype),
            torch.cat([bias[size:], bias[:size]]),
            of_hidden.sum((0, 1)),
        )
