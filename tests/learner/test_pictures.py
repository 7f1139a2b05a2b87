"""Images learnt from a few at a time: the same values and gradients as all at once, however many there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from learner import pictures
from learner.networks import Decoder, Encoder
from learner.pictures import normalise, prepared

COUNTS = [1, 3, 4, 5, 7]  # one part, as large as it may be and larger, and more of equal and unequal sizes


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "ROWS", 3)


def images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=generator)


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.1)
    return module


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", COUNTS)
def test_embeddings_and_their_gradients_are_those_of_normalised_images(count: int) -> None:
    encoder = randomised(Encoder(2))
    image, gradient = images(count), torch.randn(count, 64, dtype=torch.float64)
    actual, expected = encoder(prepared(image, torch.float64)), encoder(normalise(image, torch.float64))
    assert_same((actual,), (expected,))
    parameters = list(encoder.parameters())
    assert_same(torch.autograd.grad(actual, parameters, gradient), torch.autograd.grad(expected, parameters, gradient))


@pytest.mark.parametrize("count", COUNTS)
def test_the_decoders_error_and_its_gradients_are_those_of_what_it_draws(count: int) -> None:
    decoder = randomised(Decoder(5, 2))
    image, feature = images(count), torch.randn(count, 5, dtype=torch.float64, requires_grad=True)
    error, each = decoder.error(feature, prepared(image, torch.float64))
    expected_each = 0.5 * (decoder(feature) - normalise(image, torch.float64)).square().sum((1, 2, 3))
    assert_same((error, each), (expected_each.sum(), expected_each.detach()))
    assert not each.requires_grad
    inputs = [feature, *decoder.parameters()]
    assert_same(torch.autograd.grad(0.3 * error, inputs), torch.autograd.grad(0.3 * expected_each.sum(), inputs))
