from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from learner.networks import Decoder, Encoder
from tests.learner.reference.layers import array, convolution, dense, transposed_convolution


def convolutions(module: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def randomise(module: nn.Module) -> None:
    """Biases away from zero, so that a forgotten one shows."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("depth", [1, 32])
def test_the_encoder_gives_32_features_per_channel_of_depth(depth: int) -> None:
    encoder = Encoder(depth)
    assert encoder(torch.zeros(2, 3, 64, 64)).shape == (2, 32 * depth)


@pytest.mark.parametrize("depth", [1, 32])
def test_the_decoder_gives_an_image(depth: int) -> None:
    decoder = Decoder(23, depth)
    assert decoder(torch.zeros(2, 23)).shape == (2, 3, 64, 64)


def test_the_default_encoder_has_the_kernels_of_the_table() -> None:
    kernels = [tuple(layer.weight.shape) for layer in convolutions(Encoder(32), nn.Conv2d)]
    assert kernels == [(32, 3, 4, 4), (64, 32, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4)]


def test_the_default_decoder_has_the_kernels_of_the_table() -> None:
    decoder = Decoder(230, 32)
    kernels = [tuple(layer.weight.shape) for layer in convolutions(decoder, nn.ConvTranspose2d)]
    assert kernels == [(1024, 128, 5, 5), (128, 64, 5, 5), (64, 32, 6, 6), (32, 3, 6, 6)]
    (first,) = convolutions(decoder, nn.Linear)
    assert tuple(first.weight.shape) == (1024, 230)


def test_kernels_lie_with_their_channels_last() -> None:
    for layer in [*convolutions(Encoder(2), nn.Conv2d), *convolutions(Decoder(5, 2), nn.ConvTranspose2d)]:
        assert isinstance(layer.weight, nn.Parameter)
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_encoder_is_four_strided_convolutions_with_relu() -> None:
    torch.manual_seed(0)
    encoder = Encoder(1).double()
    randomise(encoder)
    image = torch.rand(2, 3, 64, 64, dtype=torch.float64) - 0.5
    x = array(image)
    for layer in convolutions(encoder, nn.Conv2d):
        assert isinstance(layer, nn.Conv2d)
        x = np.maximum(convolution(layer, x, stride=2), 0.0)
    np.testing.assert_allclose(array(encoder(image)), x.reshape(2, -1), rtol=1e-10, atol=1e-12)


def test_the_decoder_is_a_dense_layer_and_four_strided_deconvolutions_with_relu_between() -> None:
    torch.manual_seed(0)
    decoder = Decoder(7, 1).double()
    randomise(decoder)
    feature = torch.randn(2, 7, dtype=torch.float64)
    (first,) = convolutions(decoder, nn.Linear)
    assert isinstance(first, nn.Linear)
    x = dense(first, array(feature))[:, :, None, None]
    for i, layer in enumerate(convolutions(decoder, nn.ConvTranspose2d)):
        assert isinstance(layer, nn.ConvTranspose2d)
        x = transposed_convolution(layer, x if i == 0 else np.maximum(x, 0.0), stride=2)
    assert (x < 0).any(), "the last layer has no ReLU"
    np.testing.assert_allclose(array(decoder(feature)), x, rtol=1e-10, atol=1e-12)
