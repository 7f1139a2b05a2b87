"""Contrastive and reward-only learning: InfoNCE and its pairs, and the whole model loss, in float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from learner.world_model.objectives.contrastive import info_nce, pairwise_normal_log_prob
from tests.learner.model_terms import check_model_slopes, make_model, pairs, reference_loss, reference_terms
from tests.learner.reference import contrastive as reference
from tests.learner.reference.layers import array
from tests.learner.reference.vision import encode
from tests.learner.tiny import BATCH, LENGTH

SUMS = ("observations", "states")
CASES: dict[str, dict[str, Any]] = {
    "contrastive": {"objective": "contrastive"},
    "contrastive over states": {"objective": "contrastive", "nce_sum": "states", "kl_scale": 0.5},
    "reward only": {"objective": "reward_only"},
    "reward only, discounts too": {"objective": "reward_only", "discount_head": True},
}


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8).flatmap(lambda m: arrays(np.float64, (m, m), elements=st.floats(-1e4, 1e4))),
    st.sampled_from(SUMS),
)
def test_info_nce_compares_each_pair_with_its_rivals(log_prob: np.ndarray, sum_over: Any) -> None:
    actual = info_nce(torch.from_numpy(log_prob), sum_over).item()
    np.testing.assert_allclose(actual, reference.info_nce(log_prob, sum_over), rtol=1e-10, atol=1e-10)
    assert actual <= 1e-10


def test_the_paper_sums_over_the_observations_of_a_state() -> None:
    """m[i, j] = ln q(z_i|o_j): a state that no observation explains costs ln M, or its distance from the states."""
    log_prob = torch.tensor([[0.0, 0.0], [-1e4, -1e4]])
    assert info_nce(log_prob).item() == pytest.approx(-np.log(2.0), rel=1e-3)
    assert info_nce(log_prob, "states").item() == pytest.approx(-0.5e4, rel=1e-3)


@pytest.mark.parametrize("sum_over", SUMS)
@pytest.mark.parametrize("size", [1e30, -1e30, 1e4, 0.0])
def test_info_nce_stays_finite_for_extreme_densities(sum_over: Any, size: float) -> None:
    log_prob = (size * torch.eye(5)).requires_grad_()
    value = info_nce(log_prob, sum_over)
    (gradient,) = torch.autograd.grad(value, log_prob)
    assert bool(value.isfinite())
    assert bool(gradient.isfinite().all())


def test_info_nce_tells_nothing_apart_where_all_densities_are_equal() -> None:
    assert info_nce(torch.full((7, 7), 123.0)).item() == pytest.approx(-np.log(7.0), rel=1e-5)


def test_pairwise_densities_follow_the_plain_formula() -> None:
    value, mean, std = randn(9, 5), randn(9, 5, seed=1), randn(9, 5, seed=2).exp()
    expected = reference.pairwise_normal_log_prob(array(value), array(mean), array(std))
    actual = pairwise_normal_log_prob(value, mean, std)
    assert actual.shape == (9, 9)
    np.testing.assert_allclose(array(actual), expected, rtol=1e-10, atol=1e-10)


def test_pairwise_densities_differentiate_as_the_plain_formula() -> None:
    parts = [part.requires_grad_() for part in (randn(4, 3), randn(4, 3, seed=1), randn(4, 3, seed=2).exp())]
    assert torch.autograd.gradcheck(pairwise_normal_log_prob, parts)


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("std", [1.0, 0.1, 0.01])
def test_float32_pairs_of_a_realistic_batch_keep_their_nats(std: float, offset: float) -> None:
    """500 states of 230 features, each close to its own mean: where the squares cancel."""
    rows, features = 500, 230
    value = (offset + randn(rows, features)).float()
    mean = (value.double() + std * randn(rows, features, seed=1)).float()
    deviation = torch.full((rows, features), std)
    actual = array(pairwise_normal_log_prob(value, mean, deviation))
    expected = reference.pairwise_normal_log_prob(*(array(part) for part in (value, mean, deviation)))
    np.testing.assert_allclose(actual.diagonal(), expected.diagonal(), atol=1e-3)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_the_model_loss_has_the_objectives_term_in_place_of_the_images(case: str) -> None:
    model, batch, noise = make_model(**CASES[case])
    actual = model.loss(batch, noise)
    np.testing.assert_allclose(actual.loss.item(), reference_loss(model, batch, noise), rtol=1e-7)
    assert actual.drawn is None
    assert not any(name.startswith("objective.decoder") for name, _ in model.named_parameters())


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_follows_central_differences(case: str) -> None:
    model, batch, noise = make_model(**CASES[case])
    model.loss(batch, noise).loss.backward()
    check_model_slopes(model, lambda: reference_loss(model, batch, noise))


@pytest.mark.parametrize("sum_over", SUMS)
def test_contrastive_accuracy_counts_the_pairs_that_beat_their_rivals(sum_over: str) -> None:
    model, batch, noise = make_model("contrastive", nce_sum=sum_over)
    feature = reference_terms(model, batch, noise).posterior.feature
    image = array(batch.image).transpose(1, 0, 4, 2, 3).reshape(LENGTH * BATCH, 3, 64, 64) / 255.0 - 0.5
    table = pairs(model, feature, encode(model.encoder, image))
    best = table.argmax(1 if sum_over == "observations" else 0)
    accuracy = model.loss(batch, noise).metrics["contrastive_accuracy"].item()
    assert accuracy == pytest.approx((best == np.arange(LENGTH * BATCH)).mean())
