"""A convolution and its transpose by hand: the values and gradients of PyTorch's own, whatever form they take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learner.convolutions.convolution import Convolution
from learner.convolutions.deconvolution import Deconvolution
from learner.convolutions.gradients import FEW_IMAGES, weight_gradient
from learner.convolutions.windows import windows


def normal(*shape: int) -> Tensor:
    value = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))
    return value.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else value


def assert_same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inputs", [3, 40])  # few, whose gradient goes by blocks, and many
@pytest.mark.parametrize("outputs", [5, 130])  # with many a few places' gradient is a product
@pytest.mark.parametrize(("stride", "size"), [(1, 9), (1, 4), (2, 31), (2, 14), (2, 9), (2, 6), (2, 4)])
def test_convolutions(stride: int, size: int, outputs: int, inputs: int) -> None:
    value, weight, bias = normal(2, inputs, size, size), normal(outputs, inputs, 4, 4), normal(outputs)
    for each in (value, weight, bias):
        each.requires_grad_()
    expected = functional.relu(functional.conv2d(value, weight, bias, stride))
    layer = Convolution(weight.detach(), bias.detach(), stride)
    result = layer.forth(value.detach())
    assert_same(result, expected.detach())

    gradient = normal(*result.shape)
    through = torch.ops.aten.threshold_backward(gradient, result, 0.0)
    to_value, to_weight, to_bias = torch.autograd.grad(expected, [value, weight, bias], gradient)
    actual_weight, actual_bias = layer.own_gradients(through, value.detach())
    assert_same(actual_weight, to_weight)
    assert_same(actual_bias, to_bias)
    assert_same(layer.back(through, value.detach()), to_value * (value > 0))


@pytest.mark.parametrize("inputs", [3, 8, 20])
@pytest.mark.parametrize(("kernel", "size"), [(4, 2), (4, 1), (5, 5), (6, 13), (6, 30), (6, 5)])
def test_transposed_convolutions(kernel: int, size: int, inputs: int) -> None:
    value, weight, bias = normal(2, inputs, size, size), normal(inputs, 3, kernel, kernel), normal(3)
    for each in (value, weight, bias):
        each.requires_grad_()
    expected = functional.conv_transpose2d(value, weight, bias, stride=2)
    layer = Deconvolution(weight.detach(), bias.detach())
    assert_same(layer.forth(value.detach(), relu=False), expected.detach())
    without = Deconvolution(weight.detach()).forth(value.detach(), relu=False)
    assert_same(without, expected.detach() - bias.detach()[:, None, None])

    gradient = normal(*expected.shape)
    gradients = torch.autograd.grad(expected, [value, weight, bias], gradient)
    for actual, wanted in zip(layer.back(gradient, value.detach()), gradients, strict=True):
        assert_same(actual, wanted)


@pytest.mark.parametrize("inputs", [3, 8, 20])  # few, whose columns go in pairs, and many
@pytest.mark.parametrize(("kernel", "size"), [(4, 6), (6, 13), (6, 30), (6, 5)])
def test_the_way_back_from_blocks_is_the_one_from_pixels(kernel: int, size: int, inputs: int) -> None:
    value, weight = normal(2, inputs, size, size), normal(inputs, 3, kernel, kernel)
    layer = Deconvolution(weight, normal(3))
    height = 2 * (size - 1) + kernel
    blocks = normal(2, 12, height // 2, height // 2)
    kinds = blocks.view(2, 2, 2, 3, height // 2, height // 2)
    gradient = kinds.permute(0, 3, 4, 1, 5, 2).reshape(2, 3, height, height)
    for actual, wanted in zip(layer.back_from_blocks(blocks, value), layer.back(gradient, value), strict=True):
        assert_same(actual, wanted)


@pytest.mark.parametrize("count", [FEW_IMAGES, FEW_IMAGES + 1])
def test_weights_gradients_of_few_and_of_many_images(count: int) -> None:
    value, gradient, weight = normal(count, 2, 6, 6), normal(count, 3, 2, 2), normal(3, 2, 4, 4).requires_grad_()
    (expected,) = torch.autograd.grad(functional.conv2d(value, weight, stride=2), weight, gradient)
    assert_same(weight_gradient(gradient, value, weight.detach(), 2), expected)


def test_windows_are_what_a_convolution_sees() -> None:
    value, weight = normal(2, 3, 9, 7), normal(5, 3, 4, 4)
    seen = windows(value.permute(0, 2, 3, 1), 4)
    expected = functional.conv2d(value, weight, stride=2).permute(0, 2, 3, 1)
    assert_same(seen @ weight.permute(0, 2, 3, 1).flatten(1).T, expected)
