"""A GRU over many steps whose way back is written by hand: one product of weights' gradients for all steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def product(value: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    """value (N, I) @ matrix (I, O) + bias, computed in the matrix's type and given in the value's."""
    result = value.to(matrix.dtype) @ matrix if bias is None else torch.addmm(bias, value.to(matrix.dtype), matrix)
    return result.to(value.dtype)


def weight_gradient(gradient: Tensor, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ over all leading axes of gradient (..., O) ⊗ value (..., I) → (O, I)."""
    return (gradient.flatten(0, -2).to(dtype).T @ value.flatten(0, -2).to(dtype)).to(gradient.dtype)


def elu_slope(result: Tensor) -> Tensor:
    """The derivative of ELU where its result is this."""
    return result.clamp(max=0.0).add_(1.0)


class GruWeights(NamedTuple):
    """Those of `nn.GRUCell`: gates are in the order reset, update, new."""

    input: Tensor  # (3 D, I)
    hidden: Tensor  # (3 D, D)
    input_bias: Tensor  # (3 D)
    hidden_bias: Tensor  # (3 D)

    def to(self, dtype: torch.dtype) -> GruWeights:
        """The weights in another type."""
        return GruWeights(*(weight.to(dtype) for weight in self))


class Gru:
    """T steps of h' = n + z · (h − n), n = tanh(W x + b + r · (U h + c)), and back.

    Args:
        weights: in the type that products are computed in.
        steps: T.
        rows: N.
        like: a state, for type and device.

    Attributes:
        gradient: (T, N, 4 D), of [new from the input, reset, update, new from the hidden state] before their
            activations, so that the input's and the hidden state's are both one block; filled by `back`.
    """

    def __init__(self, weights: GruWeights, steps: int, rows: int, like: Tensor) -> None:
        self.size = size = weights.hidden.shape[1]
        self.weights = weights
        self.gates = like.new_empty(steps, rows, 2 * size)  # reset, update
        self.new = like.new_empty(steps, rows, size)
        self.from_hidden = like.new_empty(steps, rows, size)  # U h + c of the new gate
        self.steps = list(zip(self.gates.unbind(), self.new.unbind(), self.from_hidden.unbind(), strict=True))

    def forth(self, step: int, value: Tensor, hidden: Tensor, out: Tensor) -> None:
        """Step t: input (N, I) and hidden state (N, D) → the next hidden state, into `out`."""
        size = self.size
        gates, new, from_hidden = self.steps[step]
        x = product(value, self.weights.input.T, self.weights.input_bias)
        h = product(hidden, self.weights.hidden.T, self.weights.hidden_bias)
        torch.add(x[:, : 2 * size], h[:, : 2 * size], out=gates).sigmoid_()
        from_hidden.copy_(h[:, 2 * size :])
        torch.addcmul(x[:, 2 * size :], gates[:, :size], from_hidden, out=new).tanh_()
        torch.lerp(new, hidden, gates[:, size:], out=out)

    def turn(self, before: Tensor) -> None:
        """Prepares the way back for all steps at once; `before` are the hidden states (T, N, D) they began with."""
        size = self.size
        reset, update = self.gates.chunk(2, -1)
        self.gradient = self.gates.new_empty(*self.gates.shape[:2], 4 * size)
        keep = 1.0 - update
        slopes = (
            (before - self.new) * update * keep,
            keep * (1.0 - self.new.square()),
            self.from_hidden * reset * (1.0 - reset),
        )
        self.steps_back = list(
            zip(*(slope.unbind() for slope in slopes), self.gates.unbind(), self.gradient.unbind(), strict=True)
        )
        weights = self.weights
        self.input_matrix = torch.cat([weights.input[2 * size :], weights.input[: 2 * size]])  # as in `gradient`

    def back(self, step: int, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Step t: the next hidden state's gradient (N, D) → the input's (N, I) and the hidden state's (N, D)."""
        size = self.size
        to_update, to_new, to_reset, gates, out = self.steps_back[step]
        new = torch.mul(gradient, to_new, out=out[:, :size])
        torch.mul(new, to_reset, out=out[:, size : 2 * size])
        torch.mul(gradient, to_update, out=out[:, 2 * size : 3 * size])
        torch.mul(new, gates[:, :size], out=out[:, 3 * size :])
        to_hidden = product(out[:, size:], self.weights.hidden)
        return product(out[:, : 3 * size], self.input_matrix), to_hidden.addcmul_(gradient, gates[:, size:])

    def weight_gradients(self, values: Tensor, before: Tensor) -> GruWeights:
        """For inputs (T, N, I) and hidden states (T, N, D) that steps began with, once all steps were gone back."""
        size, dtype = self.size, self.weights.input.dtype
        of_input, of_hidden = self.gradient[..., : 3 * size], self.gradient[..., size:]
        matrix, bias = weight_gradient(of_input, values, dtype), of_input.sum((0, 1))
        return GruWeights(
            torch.cat([matrix[size:], matrix[:size]]),
            weight_gradient(of_hidden, before, dtype),
            torch.cat([bias[size:], bias[:size]]),
            of_hidden.sum((0, 1)),
        )
