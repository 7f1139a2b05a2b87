from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.returns import cumulative_discount, lambda_return
from tests.learner.reference import returns as reference
from tests.learner.reference.layers import array

Trajectories = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw(horizon: int, trajectories: int, seed: int) -> Trajectories:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(horizon, trajectories, generator=generator, dtype=torch.float64)
    value = 10.0 * torch.randn(horizon, trajectories, generator=generator, dtype=torch.float64)
    discount = torch.rand(horizon, trajectories, generator=generator, dtype=torch.float64)
    return reward, value, discount


some_trajectories = st.builds(draw, st.integers(2, 20), st.integers(1, 6), st.integers(0, 2**32))
some_lambda = st.floats(0.0, 1.0)
quick = settings(max_examples=60, deadline=None)


@quick
@given(some_trajectories, some_lambda)
def test_lambda_return_follows_the_recursion(trajectories: Trajectories, lambda_: float) -> None:
    reward, value, discount = trajectories
    returns = lambda_return(reward, value, discount, lambda_)
    assert returns.shape == (len(reward) - 1, reward.shape[1])
    expected = reference.lambda_return(array(reward), array(value), array(discount), lambda_)
    np.testing.assert_allclose(array(returns), expected, rtol=1e-12, atol=1e-12)


@quick
@given(some_trajectories, some_lambda)
def test_lambda_return_averages_the_n_step_returns(trajectories: Trajectories, lambda_: float) -> None:
    """Dreamer's eq. 6: (1 − λ) · Σ_n λ^(n−1) V_n, and what is left of the weight on the longest one."""
    reward, value, discount = trajectories
    returns = array(lambda_return(reward, value, discount, lambda_))
    horizon = len(reward)
    for tau in range(horizon - 1):
        longest = horizon - 1 - tau
        weights = [(1.0 - lambda_) * lambda_ ** (n - 1) for n in range(1, longest)] + [lambda_ ** (longest - 1)]
        averaged = sum(
            weight * reference.n_step_return(array(reward), array(value), array(discount), tau, n)
            for n, weight in enumerate(weights, start=1)
        )
        np.testing.assert_allclose(returns[tau], averaged, rtol=1e-10, atol=1e-10)


@quick
@given(some_trajectories)
def test_lambda_zero_looks_one_step_ahead(trajectories: Trajectories) -> None:
    reward, value, discount = trajectories
    one_step = reward[:-1] + discount[:-1] * value[1:]
    torch.testing.assert_close(lambda_return(reward, value, discount, 0.0), one_step, rtol=1e-12, atol=1e-12)


@quick
@given(some_trajectories)
def test_lambda_one_sums_every_reward_and_only_the_last_value(trajectories: Trajectories) -> None:
    reward, value, discount = trajectories
    returns = array(lambda_return(reward, value, discount, 1.0))
    horizon = len(reward)
    for tau in range(horizon - 1):
        whole = reference.n_step_return(array(reward), array(value), array(discount), tau, horizon - 1 - tau)
        np.testing.assert_allclose(returns[tau], whole, rtol=1e-12, atol=1e-12)


@quick
@given(st.integers(2, 30), st.floats(-10, 10), st.floats(0.0, 0.999), some_lambda)
def test_a_constant_reward_and_its_true_value_are_a_fixed_point(
    horizon: int, reward: float, gamma: float, lambda_: float
) -> None:
    shape, true_value = (horizon, 3), reward / (1.0 - gamma)
    rewards, values, discounts = (
        torch.full(shape, constant, dtype=torch.float64) for constant in (reward, true_value, gamma)
    )
    expected = np.full((horizon - 1, 3), true_value)
    actual = array(lambda_return(rewards, values, discounts, lambda_))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


@quick
@given(some_trajectories, some_lambda)
def test_nothing_counts_after_a_termination(trajectories: Trajectories, lambda_: float) -> None:
    reward, value, discount = trajectories
    returns = lambda_return(reward, value, torch.zeros_like(discount), lambda_)
    torch.testing.assert_close(returns, reward[:-1], rtol=0, atol=0)


@quick
@given(some_trajectories, some_lambda)
def test_neither_the_last_reward_nor_the_first_value_matters(trajectories: Trajectories, lambda_: float) -> None:
    reward, value, discount = trajectories
    returns = lambda_return(reward, value, discount, lambda_)
    reward, value, discount = reward.clone(), value.clone(), discount.clone()
    reward[-1], value[0], discount[-1] = 1e6, 1e6, 0.5
    torch.testing.assert_close(lambda_return(reward, value, discount, lambda_), returns, rtol=0, atol=0)


def test_lambda_return_passes_gradients_to_reward_and_value() -> None:
    reward, value, discount = draw(6, 4, seed=0)
    reward.requires_grad_()
    value.requires_grad_()
    discount.requires_grad_()
    assert torch.autograd.gradcheck(lambda r, v, d: lambda_return(r, v, d, 0.95), (reward, value, discount))


def test_lambda_return_leaves_its_arguments_alone() -> None:
    arguments = draw(6, 4, seed=1)
    before = [argument.clone() for argument in arguments]
    lambda_return(*arguments, 0.95)
    for argument, was in zip(arguments, before, strict=True):
        torch.testing.assert_close(argument, was, rtol=0, atol=0)


@quick
@given(some_trajectories)
def test_cumulative_discount_multiplies_the_discounts_before_a_step(trajectories: Trajectories) -> None:
    discount = trajectories[2]
    weights = cumulative_discount(discount)
    assert weights.shape == (len(discount) - 1, discount.shape[1])
    np.testing.assert_allclose(array(weights), reference.cumulative_discount(array(discount)), rtol=1e-12)
    assert bool((weights[0] == 1.0).all())


def test_a_constant_discount_gives_its_powers() -> None:
    weights = cumulative_discount(torch.full((15, 2), 0.99, dtype=torch.float64))
    np.testing.assert_allclose(array(weights)[:, 0], [0.99**k for k in range(14)], rtol=1e-12)


def test_cumulative_discount_carries_no_gradient() -> None:
    discount = torch.full((5, 2), 0.99, requires_grad=True)
    assert not cumulative_discount(discount).requires_grad


@pytest.mark.parametrize("lambda_", [0.0, 0.95, 1.0])
def test_float32_stays_close_over_a_long_horizon(lambda_: float) -> None:
    reward, value, discount = draw(50, 8, seed=2)
    expected = reference.lambda_return(array(reward), array(value), array(discount), lambda_)
    actual = lambda_return(reward.float(), value.float(), discount.float(), lambda_)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(array(actual), expected, rtol=1e-4, atol=1e-4)
