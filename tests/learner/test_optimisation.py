from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from learner.optimisation import Optimiser
from tests.learner.reference.layers import array

RATE, EPSILON = 1e-2, 1e-7


def module() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()


def gradients_of_steps(steps: int) -> list[list[torch.Tensor]]:
    """The second step's gradient is large, the others' small."""
    generator = torch.Generator().manual_seed(1)
    shapes = [tuple(p.shape) for p in module().parameters()]
    scale = [1.0, 100.0, 1.0, 0.01, 1.0]
    return [
        [scale[step] * torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
        for step in range(steps)
    ]


def global_norm(gradients: list[np.ndarray]) -> float:
    return float(np.sqrt(sum((g**2).sum() for g in gradients)))


@pytest.mark.parametrize("clip", [5.0, 1e9])
def test_steps_are_adams_on_gradients_clipped_by_their_global_norm(clip: float) -> None:
    linear = module()
    optimiser = Optimiser(linear, RATE, EPSILON, clip)
    parameters = [array(p) for p in linear.parameters()]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    for t, gradients in enumerate(gradients_of_steps(5), start=1):
        raw = [array(g) for g in gradients]
        norm = global_norm(raw)
        scale = min(1.0, clip / norm)
        for i, gradient in enumerate(raw):
            clipped = gradient * scale
            first[i] = 0.9 * first[i] + 0.1 * clipped
            second[i] = 0.999 * second[i] + 0.001 * clipped**2
            mean, square = first[i] / (1 - 0.9**t), second[i] / (1 - 0.999**t)
            parameters[i] = parameters[i] - RATE * mean / (np.sqrt(square) + EPSILON)
        reported = optimiser.step(gradients)
        np.testing.assert_allclose(reported.item(), norm, rtol=1e-9)
        for actual, expected in zip(linear.parameters(), parameters, strict=True):
            np.testing.assert_allclose(array(actual), expected, rtol=1e-6, atol=1e-9)


def test_gradients_are_of_the_optimisers_own_parameters_alone() -> None:
    own, other = module(), module()
    x = torch.randn(2, 4, dtype=torch.float64)
    loss = (own(x) * other(x)).sum()
    gradients = Optimiser(own, RATE, EPSILON, 100.0).gradients(loss)
    assert [tuple(g.shape) for g in gradients] == [(3, 4), (3,)]
    assert all(p.grad is None for p in [*own.parameters(), *other.parameters()])


def test_a_restored_optimiser_goes_on_as_if_nothing_had_happened() -> None:
    steps = gradients_of_steps(5)
    straight = module()
    optimiser = Optimiser(straight, RATE, EPSILON, 5.0)
    for gradients in steps[:3]:
        optimiser.step([g.clone() for g in gradients])
    resumed = module()
    resumed.load_state_dict(straight.state_dict())
    successor = Optimiser(resumed, RATE, EPSILON, 5.0)
    successor.restore({name: tensor.clone() for name, tensor in optimiser.state().items()})
    for gradients in steps[3:]:
        optimiser.step([g.clone() for g in gradients])
        successor.step([g.clone() for g in gradients])
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
