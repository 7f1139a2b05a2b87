from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.distributions import TanhNormal
from tests.learner.reference.densities import tanh_normal_log_prob
from tests.learner.reference.layers import array

quick = settings(max_examples=60, deadline=None)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@quick
@given(st.floats(-5, 5), st.floats(1e-3, 10), st.floats(-4, 4))
def test_a_sample_is_the_tanh_of_mean_plus_std_times_noise(mean: float, std: float, noise: float) -> None:
    action = TanhNormal(column(mean), column(std)).rsample(column(noise))
    np.testing.assert_allclose(array(action), np.tanh(mean + std * noise), rtol=1e-12)


@quick
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**32))
def test_log_density_of_a_pretanh_sample_is_summed_over_actions(actions: int, batch: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, pretanh = (torch.randn(batch, actions, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    std = torch.rand(batch, actions, generator=generator, dtype=torch.float64) + 0.1
    log_prob = TanhNormal(mean, std).log_prob_from_pretanh(pretanh)
    assert log_prob.shape == (batch,)
    expected = tanh_normal_log_prob(array(pretanh), array(mean), array(std))
    np.testing.assert_allclose(array(log_prob), expected, rtol=1e-10, atol=1e-10)


@quick
@given(st.floats(-60, 60))
def test_log_density_stays_right_where_tanh_saturates_in_float32(pretanh: float) -> None:
    mean, std = np.array([0.0]), np.array([5.0])
    expected = tanh_normal_log_prob(np.array([pretanh]), mean, std)
    actual = TanhNormal(torch.zeros(1), torch.full((1,), 5.0)).log_prob_from_pretanh(torch.tensor([pretanh]))
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.item(), expected, rtol=1e-5, atol=1e-5)


def test_the_density_integrates_to_one_over_the_actions() -> None:
    action = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1, None]
    policy = TanhNormal(column(0.4), column(0.6))
    density = policy.log_prob_from_pretanh(torch.atanh(action)).exp()
    np.testing.assert_allclose(torch.trapezoid(density, action[:, 0]).item(), 1.0, atol=1e-6)


def test_a_sample_passes_gradients_to_mean_and_std() -> None:
    mean, std, noise = (column(*v).requires_grad_() for v in ((0.3, -1.0), (0.5, 1.5), (0.7, -0.2)))
    assert torch.autograd.gradcheck(lambda m, s: TanhNormal(m, s).rsample(noise.detach()), (mean, std))
