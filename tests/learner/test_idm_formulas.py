from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from learner.behaviors.idm import decoding_constraint, derive_memory, evaluator_loss, reliability_weight
from tests.learner.reference import idm as reference
from tests.learner.reference.layers import array
from tests.learner.reference.rssm import Belief

quick = settings(max_examples=40, deadline=None)
N, DETER, STOCH = 5, 6, 4
probabilities = arrays(np.float64, array_shapes(max_dims=3, max_side=8), elements=st.floats(0.0, 1.0))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("copies", [0, 1, 3])
@pytest.mark.parametrize(("sigma_h", "sigma_n"), [(0.1, 0.3), (0.0, 0.5), (0.5, 0.0)])
def test_derived_memories_follow_the_equation_copy_after_copy(copies: int, sigma_h: float, sigma_n: float) -> None:
    deter, mean, std = randn(N, DETER), randn(N, STOCH, seed=1), randn(N, STOCH, seed=2).exp()
    noise_h, noise_s = randn(copies * N, DETER, seed=3), randn(copies * N, STOCH, seed=4)
    derived = derive_memory(deter, mean, std, sigma_h, sigma_n, copies, noise_h, noise_s)
    belief = Belief(array(deter), array(mean), array(std), array(mean))
    expected = reference.derive_memory(belief, sigma_h, sigma_n, copies, array(noise_h), array(noise_s))
    for actual, each, size in zip(derived, expected, (DETER, STOCH), strict=True):
        assert actual.shape == (copies * N, size)
        np.testing.assert_allclose(array(actual), each, rtol=1e-12)


def test_without_disturbance_a_derived_memory_is_a_fresh_draw_of_the_posterior() -> None:
    deter, mean, std, noise = randn(N, DETER), randn(N, STOCH, seed=1), randn(N, STOCH).exp(), randn(N, STOCH, seed=3)
    h, s = derive_memory(deter, mean, std, 0.0, 0.0, 1, randn(N, DETER, seed=5), noise)
    assert h.equal(deter)
    assert s.equal(mean + std * noise)


def test_the_standard_deviations_are_added_and_not_the_variances() -> None:
    count = 20_000
    zeros, std = torch.zeros(1, 1).double(), torch.full((1, 1), 2.0).double()
    noise_h, noise_s = randn(count, 1), randn(count, 1, seed=1)
    h, s = derive_memory(zeros, zeros, std, 0.5, 1.0, count, noise_h, noise_s)
    np.testing.assert_allclose([h.std().item(), s.std().item()], [0.5, 3.0], rtol=0.03)


@quick
@given(probabilities)
def test_reliability_is_the_share_of_all_probability_with_mean_one(probability: np.ndarray) -> None:
    weight = reliability_weight(torch.from_numpy(probability))
    assert weight.shape == probability.shape
    np.testing.assert_allclose(array(weight), reference.reliability_weight(probability), rtol=1e-10)
    assert array(weight).mean() == pytest.approx(1.0)
    assert bool((weight >= 0.0).all())


EXTREMES = {
    "zeros": torch.zeros(9, 40),
    "ones": torch.ones(9, 40),
    "denormal": torch.full((9, 40), 1e-42),
    "one real": torch.eye(40)[:1],
    "one entry": torch.zeros(1, 1),
    "many": torch.full((14, 5000), 1.0),
    "saturated": torch.sigmoid(torch.linspace(-1e4, 1e4, 360)).view(9, 40),
}


@pytest.mark.parametrize("case", EXTREMES)
def test_extreme_probabilities_give_finite_float32_weights_of_mean_one(case: str) -> None:
    weight = reliability_weight(EXTREMES[case])
    assert weight.dtype == torch.float32
    assert bool(weight.isfinite().all())
    np.testing.assert_allclose(array(weight), reference.reliability_weight(array(EXTREMES[case])), rtol=1e-4)


def test_where_nothing_looks_real_every_step_counts_alike() -> None:
    np.testing.assert_allclose(array(reliability_weight(torch.zeros(3, 4))), 1.0, rtol=1e-6)


def test_reliability_carries_no_gradient() -> None:
    assert not reliability_weight(torch.rand(4, 3, requires_grad=True)).requires_grad


@quick
@given(
    arrays(np.float64, (3, 4), elements=st.floats(-50.0, 50.0)),
    arrays(np.float64, (5,), elements=st.floats(-50.0, 50.0)),
)
def test_the_evaluators_loss_is_the_cross_entropy_of_real_and_fake(real: np.ndarray, fake: np.ndarray) -> None:
    actual = evaluator_loss(torch.from_numpy(real), torch.from_numpy(fake))
    assert actual.shape == ()
    np.testing.assert_allclose(actual.item(), reference.evaluator_loss(real, fake), rtol=1e-8, atol=1e-8)


def test_an_evaluator_that_knows_nothing_loses_two_bits() -> None:
    assert evaluator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(2.0 * np.log(2.0))


@pytest.mark.parametrize("real", [-1e4, 1e4])
@pytest.mark.parametrize("fake", [-1e4, 1e4])
def test_the_evaluators_loss_stays_finite_for_saturated_logits(real: float, fake: float) -> None:
    logits = [torch.full((3,), value, requires_grad=True) for value in (real, fake)]
    loss = evaluator_loss(*logits)
    np.testing.assert_allclose(loss.item(), max(-real, 0.0) + max(fake, 0.0), atol=1e-6)
    for gradient, wrong, sign in zip(torch.autograd.grad(loss, logits), (real < 0, fake > 0), (-1, 1), strict=True):
        np.testing.assert_allclose(array(gradient), sign * wrong / 3.0, atol=1e-6)


def pictures(seed: int, size: float, count: int = 6) -> torch.Tensor:
    return size * randn(count, 3, 64, 64, seed=seed)


@pytest.mark.parametrize("delta", [0.0, 3.0, 20.0, 1e6])
def test_the_constraint_is_the_mean_excess_of_each_image(delta: float) -> None:
    drawn = pictures(0, 1.0)
    disturbed = drawn + torch.linspace(0.0, 0.1, 6).double()[:, None, None, None] * pictures(1, 1.0)
    expected = reference.decoding_constraint(array(drawn), array(disturbed), delta)
    np.testing.assert_allclose(decoding_constraint(drawn, disturbed, delta).item(), expected, rtol=1e-12, atol=1e-12)


def test_an_image_within_its_margin_does_not_pay_for_another() -> None:
    drawn, disturbed = torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)
    disturbed[0, 0, 0, 0] = 4.0  # 8 nats, and none for the other: a margin of 5 on their mean would be enough
    assert decoding_constraint(drawn, disturbed, 5.0).item() == pytest.approx(1.5)


def test_the_constraint_pulls_both_images_together_where_it_is_broken() -> None:
    drawn = torch.zeros(2, 3, 64, 64).double().requires_grad_()
    disturbed = torch.zeros(2, 3, 64, 64).double()
    disturbed[0] += 1.0
    disturbed.requires_grad_()
    loss = decoding_constraint(drawn, disturbed, 3.0)
    to_drawn, to_disturbed = torch.autograd.grad(loss, [drawn, disturbed])
    np.testing.assert_allclose(array(to_disturbed[0]), 0.5)
    assert bool((to_drawn == -to_disturbed).all())
    assert not to_disturbed[1].any()
