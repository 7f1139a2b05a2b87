"""The ablation without a value head: returns, loss, gradient, and what it leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.returns import horizon_return
from tests.learner.dreaming import Imagined, Setup, check_slopes, reached
from tests.learner.reference import returns as reference
from tests.learner.reference.layers import array
from tests.learner.tiny import tiny_config
from tests.learner.tiny_learner import make_learner, parameters

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one step": {"horizon": 1},
    "two steps": {"horizon": 2},
    "discounted": {"no_value": {"discounted": True}},
    "discounted by a head": {"no_value": {"discounted": True}, "world_model": {"discount_head": True}},
    "a head unheeded": {"world_model": {"discount_head": True}},
    "one discounted step": {"no_value": {"discounted": True}, "horizon": 1},
}


def draw(horizon: int, trajectories: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    reward = torch.randn(horizon, trajectories, generator=generator, dtype=torch.float64)
    return reward, torch.rand(horizon, trajectories, generator=generator, dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(st.builds(draw, st.integers(1, 20), st.integers(1, 6), st.integers(0, 2**32)))
def test_horizon_return_sums_the_discounted_rewards_up_to_the_horizon(
    trajectories: tuple[torch.Tensor, torch.Tensor],
) -> None:
    reward, discount = trajectories
    for factor in (discount, torch.ones_like(discount), torch.zeros_like(discount)):
        actual = horizon_return(reward, factor)
        expected = reference.horizon_return(array(reward), array(factor))
        assert actual.shape == reward.shape
        np.testing.assert_allclose(array(actual), expected, rtol=1e-12, atol=1e-12)


def test_undiscounted_ones_count_the_steps_that_are_left() -> None:
    ones = torch.ones(5, 1)
    assert horizon_return(ones, ones).flatten().tolist() == [5.0, 4.0, 3.0, 2.0, 1.0]


def test_horizon_return_differentiates() -> None:
    reward, discount = (part.requires_grad_() for part in draw(4, 2, seed=0))
    assert torch.autograd.gradcheck(horizon_return, (reward, discount))


def expected_loss(setup: Setup, dream: Imagined) -> float:
    discount = dream.discount if setup.config.no_value.discounted else np.ones_like(dream.discount)
    return -float(reference.horizon_return(dream.reward, discount).mean())


@pytest.fixture(params=CASES)
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup("no_value", **CASES[request.param])


def test_the_actor_loss_is_the_mean_return_over_all_steps_and_starts(setup: Setup) -> None:
    assert len(setup.imagine().reward) == setup.config.horizon
    np.testing.assert_allclose(setup.losses()["actor"].item(), expected_loss(setup, setup.imagine()), rtol=1e-10)


def test_the_actors_gradient_runs_through_the_dream(setup: Setup) -> None:
    actor = setup.behavior.acting
    base = setup.imagine()
    gradients = setup.gradients("actor", actor)
    check_slopes(actor, gradients, lambda: expected_loss(setup, setup.imagine(base.seen)), entries=2)


def test_there_is_no_value_head_and_the_actor_alone_is_trained() -> None:
    learner = make_learner(tiny_config(algorithm="no_value", world_model={"learning_rate": 0.0}))
    before = parameters(learner)
    assert not [name for name in before if "value" in name]
    assert set(learner.optimisers) == {"model", "actor"}
    learner.update(1)
    changed = {name for name, value in parameters(learner).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("behavior.acting.")}


def test_the_loss_reaches_every_parameter_of_the_actor_and_no_posterior() -> None:
    setup = Setup("no_value")
    loss = setup.losses()["actor"]
    named = dict(setup.behavior.named_parameters())
    assert reached(loss, setup.behavior) == set(named)
    assert torch.autograd.grad(loss, list(setup.posterior), allow_unused=True, retain_graph=True) == (None,) * 4
