from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from learner.behaviors.bird import confidence_weight
from tests.learner.reference import bird as reference
from tests.learner.reference.layers import array

quick = settings(max_examples=40, deadline=None)
densities = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-200.0, 100.0))
NO_ROUNDING = 1e-3
"""A spread of sums that rounding did not make; where all are equal, 1e-9 divides what rounding the mean leaves."""


@quick
@given(densities)
def test_the_weight_is_the_clipped_standard_score_of_a_trajectorys_log_density(log_prob: np.ndarray) -> None:
    weight = confidence_weight(torch.from_numpy(log_prob))
    assert weight.shape == (log_prob.shape[1],)
    spread = log_prob.sum(0).std()
    if spread == 0.0 or spread > NO_ROUNDING:
        expected = reference.confidence_weight(log_prob)
        np.testing.assert_allclose(array(weight), expected, rtol=1e-6, atol=1e-6 if spread else 1e-3)
    assert bool(((weight >= 0.0) & (weight <= 2.0)).all())


@quick
@given(densities, st.integers(0, 2**16))
def test_weights_follow_their_trajectories_and_ignore_a_common_shift(log_prob: np.ndarray, seed: int) -> None:
    if log_prob.sum(0).std() < NO_ROUNDING:
        return
    order = np.random.default_rng(seed).permutation(log_prob.shape[1])
    moved = confidence_weight(torch.from_numpy(log_prob[:, order] + 3.0))
    np.testing.assert_allclose(array(moved), array(confidence_weight(torch.from_numpy(log_prob)))[order], atol=1e-6)


@quick
@given(densities)
def test_weights_average_one_where_clipping_is_as_strong_on_both_sides(log_prob: np.ndarray) -> None:
    mirrored = np.concatenate([log_prob, -log_prob], axis=1)
    assert array(confidence_weight(torch.from_numpy(mirrored))).mean() == pytest.approx(1.0)


def test_weights_average_one_before_they_are_clipped() -> None:
    """Two equally likely values stand one deviation from their mean, where nothing is cut off."""
    log_prob = torch.tensor([[3.0, 5.0, 5.0, 3.0]], dtype=torch.float64)
    np.testing.assert_allclose(array(confidence_weight(log_prob)), [0.0, 2.0, 2.0, 0.0], atol=1e-8)
    assert array(confidence_weight(log_prob)).mean() == pytest.approx(1.0)


def test_weights_carry_no_gradient() -> None:
    assert not confidence_weight(torch.randn(4, 3, requires_grad=True)).requires_grad


EXTREMES = {
    "huge": [1e30, 0.0, -1e30],
    "one huge": [1e30, 1.0, 2.0],
    "one tiny": [-1e30, 1.0, 2.0],
    "one trajectory": [-1234.567],
    "all equal": [-123.4567] * 2500,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", EXTREMES)
def test_extreme_confidences_give_finite_weights(case: str, dtype: torch.dtype) -> None:
    log_prob = torch.tensor([EXTREMES[case]], dtype=dtype)
    weight = confidence_weight(log_prob)
    assert weight.dtype == dtype
    np.testing.assert_allclose(array(weight), reference.confidence_weight(array(log_prob)), atol=1e-3)


@pytest.mark.parametrize("count", [1, 7, 100, 2500])
@pytest.mark.parametrize("value", [0.1, -123.4567])
def test_equal_confidences_are_no_reason_to_prefer_one_in_float32(count: int, value: float) -> None:
    """Rounding of the mean must not count as a difference between trajectories."""
    weight = confidence_weight(torch.full((15, count), value))
    np.testing.assert_allclose(array(weight), 1.0, atol=1e-3)


def test_float32_weights_of_a_realistic_batch_are_close() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob = -20.0 + 5.0 * torch.randn(15, 500, generator=generator, dtype=torch.float64)
    expected = reference.confidence_weight(array(log_prob))
    np.testing.assert_allclose(array(confidence_weight(log_prob.float())), expected, atol=1e-4)
