from __future__ import annotations

import numpy as np
import pytest
import torch

from common.config import Entropy
from learner.behaviors.entropy import policy_entropy
from learner.distributions import TanhNormal
from tests.learner.reference import bird as reference
from tests.learner.reference.layers import array

FORMS: tuple[Entropy, ...] = ("tanh_normal", "gaussian")
SATURATED = [(50.0, 1e-4), (-50.0, 1e-4), (50.0, 1.0), (-50.0, 1e4), (0.0, 1e-4), (0.0, 1e4), (0.0, 1e-10), (5.0, 1e8)]


def draw(samples: int, *leading: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(samples, *leading, generator=torch.Generator().manual_seed(0), dtype=dtype)


def stratified(count: int) -> torch.Tensor:
    """Standard normal samples (count, 1), each from its own slice of equal probability."""
    middle = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.special.ndtri(middle)[:, None]


@pytest.mark.parametrize("form", FORMS)
def test_entropy_follows_its_equation_for_given_samples(form: Entropy) -> None:
    mean, raw = draw(2, 3, 4, 2).unbind()
    std, noise = raw.exp(), draw(7, 3, 4, 2)
    actual = policy_entropy(TanhNormal(mean, std), form, noise)
    assert actual.shape == (3, 4)
    expected = reference.entropy(array(mean), array(std), form, array(noise))
    np.testing.assert_allclose(array(actual), expected, atol=1e-8)  # torch's softplus is linear from 20 on


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.1), (0.0, 1.0), (1.5, 0.5), (-3.0, 2.0), (5.0, 5.0)])
def test_the_sampled_entropy_tends_to_the_integral(mean: float, std: float) -> None:
    policy = TanhNormal(torch.full((1,), mean).double(), torch.full((1,), std).double())
    actual = policy_entropy(policy, "tanh_normal", stratified(20_000)).item()
    np.testing.assert_allclose(actual, reference.tanh_normal_entropy(mean, std), atol=5e-3)


def test_dimensions_add_up() -> None:
    mean, std = torch.tensor([0.0, 1.5]).double(), torch.tensor([1.0, 0.5]).double()
    noise = stratified(20_000).expand(-1, 2)
    expected = reference.tanh_normal_entropy(0.0, 1.0) + reference.tanh_normal_entropy(1.5, 0.5)
    actual = policy_entropy(TanhNormal(mean, std), "tanh_normal", noise)
    np.testing.assert_allclose(actual.item(), expected, atol=1e-2)


def test_no_squashed_policy_is_wider_than_the_uniform_one() -> None:
    std = torch.logspace(-3, 3, 50).double()[:, None]
    noise = stratified(2000)[:, None].expand(-1, 50, 1)
    entropy = policy_entropy(TanhNormal(torch.zeros_like(std), std), "tanh_normal", noise)
    assert entropy.max().item() <= np.log(2.0) + 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("mean", "std"), SATURATED)
def test_saturated_policies_have_finite_entropy_and_gradient_in_float32(form: Entropy, mean: float, std: float) -> None:
    parameters = [torch.full((3, 2), value, requires_grad=True) for value in (mean, std)]
    entropy = policy_entropy(TanhNormal(*parameters), form, draw(100, 3, 2, dtype=torch.float32))
    assert entropy.dtype == torch.float32
    assert bool(entropy.isfinite().all())
    for gradient in torch.autograd.grad(entropy.sum(), parameters, allow_unused=True):
        assert gradient is None or bool(gradient.isfinite().all())


@pytest.mark.parametrize(("mean", "std"), [(50.0, 1e-4), (-50.0, 1.0), (0.0, 1e-4), (3.0, 0.3)])
def test_float32_entropies_are_close_to_float64(mean: float, std: float) -> None:
    noise = draw(100, 1)
    policy = TanhNormal(torch.full((1,), mean), torch.full((1,), std))
    expected = reference.sampled_entropy(np.array([mean]), np.array([std]), array(noise))
    np.testing.assert_allclose(array(policy_entropy(policy, "tanh_normal", noise.float())), expected, atol=2e-2)


@pytest.mark.parametrize("form", FORMS)
def test_the_entropys_gradient_widens_a_narrow_policy(form: Entropy) -> None:
    mean, std = torch.zeros(1, 2), torch.full((1, 2), 0.1, requires_grad=True)
    entropy = policy_entropy(TanhNormal(mean, std), form, draw(100, 1, 2, dtype=torch.float32))
    (gradient,) = torch.autograd.grad(entropy.sum(), std)
    assert bool((gradient > 0.0).all())
