from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.world_model.kl import kl_loss
from learner.world_model.rssm import State
from tests.learner.reference.densities import normal_kl
from tests.learner.reference.layers import array

LENGTH, BATCH, STOCH, DETER = 4, 3, 5, 7


def random_state(seed: int, spread: float) -> State:
    generator = torch.Generator().manual_seed(seed)
    mean = spread * torch.randn(LENGTH, BATCH, STOCH, generator=generator, dtype=torch.float64)
    std = 0.1 + torch.rand(LENGTH, BATCH, STOCH, generator=generator, dtype=torch.float64)
    deter = torch.randn(LENGTH, BATCH, DETER, generator=generator, dtype=torch.float64)
    return State(deter, mean.requires_grad_(), std.requires_grad_(), mean.detach())


def reference_kl(posterior: State, prior: State) -> np.ndarray:
    return normal_kl(array(posterior.mean), array(posterior.std), array(prior.mean), array(prior.std))


@pytest.fixture
def posterior() -> State:
    return random_state(0, 1.0)


@pytest.fixture
def prior() -> State:
    return random_state(1, 0.5)


@pytest.mark.parametrize("free_share", [0.0, 0.5, 0.999, 1.001, 3.0])
def test_mean_clip_takes_the_mean_before_the_maximum(posterior: State, prior: State, free_share: float) -> None:
    mean = reference_kl(posterior, prior).mean()
    free_nats = free_share * mean
    loss = kl_loss(posterior, prior, free_nats)
    assert loss.shape == ()
    np.testing.assert_allclose(loss.item(), max(mean, free_nats), rtol=1e-12)


@pytest.mark.parametrize("free_nats", [0.0, 3.0, 8.0, 1000.0])
def test_element_clip_takes_the_maximum_before_the_mean(posterior: State, prior: State, free_nats: float) -> None:
    expected = np.maximum(reference_kl(posterior, prior), free_nats).mean()
    np.testing.assert_allclose(kl_loss(posterior, prior, free_nats, clip="element").item(), expected, rtol=1e-12)


def test_the_two_clips_differ_where_some_elements_are_free(posterior: State, prior: State) -> None:
    each = reference_kl(posterior, prior)
    free_nats = float(np.median(each))
    assert each.mean() > free_nats
    by_mean = kl_loss(posterior, prior, free_nats, clip="mean").item()
    by_element = kl_loss(posterior, prior, free_nats, clip="element").item()
    assert by_element > by_mean + 0.1


def test_equal_states_have_no_divergence(posterior: State) -> None:
    assert abs(kl_loss(posterior, posterior, 0.0).item()) < 1e-12


def test_the_deterministic_part_does_not_count(posterior: State, prior: State) -> None:
    moved = posterior._replace(deter=posterior.deter + 5.0, stoch=posterior.stoch + 5.0)
    assert kl_loss(moved, prior, 0.0).item() == kl_loss(posterior, prior, 0.0).item()


def test_gradients_reach_both_sides_and_follow_the_formula(posterior: State, prior: State) -> None:
    """By μ_q: (μ_q − μ_p)/σ_p²; by σ_q: σ_q/σ_p² − 1/σ_q; by σ_p: 1/σ_p − (σ_q² + (μ_q − μ_p)²)/σ_p³."""
    kl_loss(posterior, prior, 0.0).backward()
    mean_q, std_q, mean_p, std_p = (array(t) for t in (posterior.mean, posterior.std, prior.mean, prior.std))
    count = LENGTH * BATCH
    to_mean = (mean_q - mean_p) / std_p**2
    np.testing.assert_allclose(array(posterior.mean.grad) * count, to_mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(array(prior.mean.grad) * count, -to_mean, rtol=1e-10, atol=1e-12)
    to_std_q = std_q / std_p**2 - 1.0 / std_q
    np.testing.assert_allclose(array(posterior.std.grad) * count, to_std_q, rtol=1e-10, atol=1e-12)
    to_std_p = 1.0 / std_p - (std_q**2 + (mean_q - mean_p) ** 2) / std_p**3
    np.testing.assert_allclose(array(prior.std.grad) * count, to_std_p, rtol=1e-10, atol=1e-12)


def test_free_nats_stop_the_gradient_as_a_whole(posterior: State, prior: State) -> None:
    kl_loss(posterior, prior, 1000.0).backward()
    for tensor in (posterior.mean, posterior.std, prior.mean, prior.std):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_element_clip_stops_the_gradient_of_the_free_elements_alone(posterior: State, prior: State) -> None:
    each = reference_kl(posterior, prior)
    free_nats = float(np.median(each))
    kl_loss(posterior, prior, free_nats, clip="element").backward()
    moved = array(prior.mean.grad).any(axis=-1)
    np.testing.assert_array_equal(moved[each != free_nats], (each > free_nats)[each != free_nats])
    assert moved.any()
    assert not moved.all()
