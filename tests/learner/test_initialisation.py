"""Keras' defaults on every layer of the paper-sized networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from common.config import Config
from common.presets import paper
from learner.learner import Learner
from tests.learner.tiny import ACTIONS


def build(config: Config) -> nn.Module:
    return Learner(config, ACTIONS, iter([])).modules


@pytest.fixture(scope="module")
def modules() -> nn.Module:
    return build(paper())


def layers(modules: nn.Module) -> dict[str, nn.Module]:
    """Every module that holds parameters of its own."""
    return {name: m for name, m in modules.named_modules() if next(m.parameters(recurse=False), None) is not None}


def kernel(layer: nn.Module) -> torch.Tensor:
    """The kernel that reads the layer's input, (outputs, inputs) or convolutional."""
    weight = layer.weight_ih if isinstance(layer, nn.GRUCell) else layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach().double()


def fans(weight: torch.Tensor) -> int:
    """Inputs + outputs, each counted once per pixel of a convolution's kernel; a GRU's gates are one kernel."""
    outputs, inputs, *size = weight.shape
    return (inputs + outputs) * math.prod(size)


def test_only_known_layers_hold_parameters(modules: nn.Module) -> None:
    kinds = {type(layer) for layer in layers(modules).values()}
    assert kinds == {nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.GRUCell}


def test_every_kernel_is_glorot_uniform(modules: nn.Module) -> None:
    """Within ±sqrt(6 / fans), reaching to the bounds, with mean 0 and variance 2 / fans to five standard errors."""
    for name, layer in layers(modules).items():
        weight = kernel(layer)
        count, bound = weight.numel(), math.sqrt(6.0 / fans(weight))
        assert weight.abs().max() <= bound, name
        assert weight.abs().max() > 0.95 * bound, name
        assert abs(weight.mean()) < 5 * bound / math.sqrt(3 * count), name
        error_of_variance = bound**2 * math.sqrt(4 / 45 / count)
        assert abs(weight.square().mean() - 2.0 / fans(weight)) < 5 * error_of_variance, name


def test_every_bias_is_zero(modules: nn.Module) -> None:
    biases = {name: p for name, p in modules.named_parameters() if name.rsplit(".", 1)[-1].startswith("bias")}
    assert len(biases) == len(layers(modules)) + 1, "one a layer, two of the GRU"
    assert [name for name, bias in biases.items() if bias.any()] == []


def test_the_recurrent_kernel_is_orthogonal_as_a_whole(modules: nn.Module) -> None:
    """Keras draws one (units, 3 · units) kernel with orthonormal rows; PyTorch stores its transpose."""
    (cell,) = (layer for layer in modules.modules() if isinstance(layer, nn.GRUCell))
    weight = cell.weight_hh.detach().double()
    torch.testing.assert_close(weight.T @ weight, torch.eye(weight.shape[1], dtype=torch.float64), atol=1e-5, rtol=0)


def test_the_seed_decides_the_initial_parameters(modules: nn.Module) -> None:
    again, other = build(paper()).state_dict(), build(Config(seed=1)).state_dict()
    for name, value in modules.state_dict().items():
        assert torch.equal(again[name], value), name
        assert torch.equal(other[name], value) is not bool(value.any()), name
