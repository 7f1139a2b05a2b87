"""Dreamer's actor and value loss and their gradients, against the whole of imagination in float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learner.behaviors.dreamer import Dreamer
from tests.learner.dreaming import Setup, check_slopes
from tests.learner.reference import losses as reference
from tests.learner.reference.layers import elu_mlp
from tests.learner.tiny import ACTIONS, randomise, tiny_config

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "no discount weights": {"dreamer": {"discount_weights": False}},
    "value target": {"dreamer": {"value_target_every": 100}},
    "discount head": {"world_model": {"discount_head": True}},
    "arxiv actor": {"dreamer": {"mean_scale": 0.0, "init_std": 0.0}},
}


@pytest.fixture(params=CASES)
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup(**CASES[request.param])


def test_the_actor_loss_is_the_weighted_return(setup: Setup) -> None:
    dream = setup.imagine()
    expected = -(setup.weights(dream) * setup.returns(dream)).mean()
    actual = setup.losses()["actor"]
    assert actual.shape == ()
    np.testing.assert_allclose(actual.item(), expected, rtol=1e-10)


def test_the_value_loss_is_the_weighted_negative_log_density_of_the_return(setup: Setup) -> None:
    dream = setup.imagine()
    expected = (setup.weights(dream) * setup.squared_error(dream, setup.returns(dream))).mean()
    np.testing.assert_allclose(setup.losses()["value"].item(), expected, rtol=1e-10)


def test_both_losses_equal_the_reference_on_the_default_settings() -> None:
    setup = Setup()
    dream, losses = setup.imagine(), setup.losses()
    head = elu_mlp(setup.behavior.value, dream.feature)[..., 0]
    actor = reference.actor_loss(dream.reward, head, dream.discount, 0.95)
    value = reference.value_loss(setup.returns(dream), head, dream.discount)
    np.testing.assert_allclose(losses["actor"].item(), actor, rtol=1e-10)
    np.testing.assert_allclose(losses["value"].item(), value, rtol=1e-10)


def test_the_actors_gradient_runs_through_dynamics_reward_and_value_with_its_input_and_weights_fixed(
    setup: Setup,
) -> None:
    actor = setup.behavior.acting
    gradients = setup.gradients("actor", actor)
    base = setup.imagine()
    weights = setup.weights(base)
    check_slopes(actor, gradients, lambda: -(weights * setup.returns(setup.imagine(base.seen))).mean(), entries=4)


def test_the_values_gradient_takes_returns_and_features_as_given(setup: Setup) -> None:
    head = setup.behavior.value
    gradients = setup.gradients("value", head)
    base = setup.imagine()
    weights, returns = setup.weights(base), setup.returns(base)
    check_slopes(head, gradients, lambda: float((weights * setup.squared_error(base, returns)).mean()), entries=4)


def test_no_loss_of_the_behaviour_reaches_the_posterior(setup: Setup) -> None:
    for loss in setup.losses().values():
        assert torch.autograd.grad(loss, list(setup.posterior), allow_unused=True, retain_graph=True) == (None,) * 4


def test_the_value_loss_reaches_nothing_but_the_value_head(setup: Setup) -> None:
    others = [*setup.world_model.parameters(), *setup.behavior.acting.parameters()]
    gradients = torch.autograd.grad(setup.losses()["value"], others, allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_the_value_target_is_a_copy_from_every_so_many_updates_ago() -> None:
    torch.manual_seed(0)
    behavior = Dreamer(tiny_config(dreamer={"value_target_every": 3}), 10, ACTIONS)
    assert behavior.value_target is not None

    def distance() -> float:
        pairs = zip(behavior.value.parameters(), behavior.value_target.parameters(), strict=True)
        return max((a - b).abs().max().item() for a, b in pairs)

    assert distance() == 0.0
    followed = []
    for updates in range(1, 8):
        randomise(behavior.value, size=0.1, seed=updates)
        behavior.after_update(updates)
        followed.append(distance() == 0.0)
    assert followed == [False, False, True, False, False, True, False]


def test_the_value_target_is_not_trained() -> None:
    behavior = Dreamer(tiny_config(dreamer={"value_target_every": 3}), 10, ACTIONS)
    assert behavior.value_target is not None
    trained = {id(p) for group in behavior.groups().values() for p in group.module.parameters()}
    assert not trained & {id(p) for p in behavior.value_target.parameters()}


def test_each_group_trains_at_its_own_rate() -> None:
    config = tiny_config(dreamer={"actor_learning_rate": 0.125, "value_learning_rate": 0.25})
    behavior = Dreamer(config, 10, ACTIONS)
    groups = behavior.groups()
    assert {name: group.learning_rate for name, group in groups.items()} == {"actor": 0.125, "value": 0.25}
    assert groups["actor"].module is behavior.acting
    assert groups["value"].module is behavior.value
