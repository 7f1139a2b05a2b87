"""The whole model loss, from uint8 images to nats, and its gradient, against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.learner.model_terms import check_model_slopes, make_model, reference_loss, reference_terms
from tests.learner.reference.layers import array, elu_mlp, sigmoid
from tests.learner.tiny import BATCH, LENGTH

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "half the kl": {"kl_scale": 0.5},
    "all nats free": {"free_nats": 1000.0},
    "free nats by element": {"free_nats": 0.3, "kl_clip": "element"},
    "discount head": {"discount_head": True},
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_loss_follows_the_equation_constants_included(case: str) -> None:
    model, batch, noise = make_model(**CASES[case])
    actual = model.loss(batch, noise).loss
    assert actual.shape == ()
    # The images are float32 on their way into the model, hence not 1e-12.
    np.testing.assert_allclose(actual.item(), reference_loss(model, batch, noise), rtol=1e-8)


def test_the_metrics_are_the_terms_of_the_loss() -> None:
    model, batch, noise = make_model(discount_head=True)
    terms = reference_terms(model, batch, noise)
    metrics = model.loss(batch, noise).metrics
    expected = {
        "image_loss": terms.seeing,
        "reward_loss": terms.reward,
        "kl": terms.kl,
        "discount_loss": terms.discount,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name].item(), value, rtol=1e-6, err_msg=name)
        assert not metrics[name].requires_grad


def test_the_posterior_comes_back_time_first_and_attached() -> None:
    model, batch, noise = make_model()
    posterior = model.loss(batch, noise).posterior
    expected = reference_terms(model, batch, noise).posterior
    np.testing.assert_allclose(array(posterior.feature), expected.feature, rtol=1e-6, atol=1e-7)
    assert posterior.stoch.requires_grad


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_every_parameter_follows_central_differences_of_the_reference(case: str) -> None:
    """One random entry of each parameter tensor."""
    model, batch, noise = make_model(**CASES[case])
    model.loss(batch, noise).loss.backward()
    check_model_slopes(model, lambda: reference_loss(model, batch, noise))


def test_free_nats_leave_the_prior_untrained() -> None:
    """Only the KL reaches the prior's own layers; the posterior still learns from image and reward."""
    model, batch, noise = make_model(free_nats=1000.0)
    model.loss(batch, noise).loss.backward()
    for name, parameter in model.rssm.named_parameters():
        assert parameter.grad is not None
        of_the_prior = name.startswith(("prior_hidden", "prior_output"))
        assert bool(parameter.grad.any()) is not of_the_prior, name


def test_every_row_may_start_imagination_and_is_detached() -> None:
    model, batch, noise = make_model()
    posterior = model.loss(batch, noise).posterior
    starts = model.starts(posterior)
    assert len(starts.deter) == model.start_count(BATCH, LENGTH) == BATCH * LENGTH
    assert not any(part.requires_grad for part in starts)
    torch.testing.assert_close(starts.feature, posterior.feature.detach().flatten(0, 1), rtol=0, atol=0)


def test_with_a_discount_head_no_sequence_starts_imagination_in_its_last_row() -> None:
    model, batch, noise = make_model(discount_head=True)
    posterior = model.loss(batch, noise).posterior
    starts = model.starts(posterior)
    assert len(starts.deter) == model.start_count(BATCH, LENGTH) == BATCH * (LENGTH - 1)
    torch.testing.assert_close(starts.feature, posterior.feature[:-1].detach().flatten(0, 1), rtol=0, atol=0)


def test_the_imagined_discount_is_gamma_or_the_heads_mean() -> None:
    feature = torch.randn(3, 5, 10, dtype=torch.float64)
    without, _, _ = make_model()
    np.testing.assert_allclose(array(without.discount(feature)), np.full((3, 5), 0.99), rtol=1e-12)
    with_head, _, _ = make_model(discount_head=True)
    expected = sigmoid(elu_mlp(with_head.discount_head, array(feature))[..., 0])
    np.testing.assert_allclose(array(with_head.discount(feature)), expected, rtol=1e-12)
