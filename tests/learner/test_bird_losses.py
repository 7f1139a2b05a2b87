"""BIRD's and Soft-BIRD's losses and gradients, against the whole of imagination in float64 numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learner.behaviors import bird
from learner.behaviors.soft_bird import soft_reward
from tests.learner.dreaming import Imagined, Setup, check_slopes, reached
from tests.learner.reference.bird import confidence_weight, entropy
from tests.learner.reference.densities import normal_log_prob
from tests.learner.reference.layers import array
from tests.learner.tiny import tiny_config
from tests.learner.tiny_learner import assert_equal, make_learner, parameters

BIRD: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "policy alone": {"bird": {"confidence_on_value": False}},
    "entropy": {"bird": {"entropy_weight": 0.7}},
    "gaussian entropy": {"bird": {"entropy_weight": 0.7, "entropy": "gaussian"}},
    "no entropy": {"bird": {"entropy_weight": 0.0}},
    "discount head": {"bird": {"entropy_weight": 0.7}, "world_model": {"discount_head": True}},
    "arxiv": {"dreamer": {"mean_scale": 0.0, "init_std": 0.0, "discount_weights": False, "value_target_every": 9}},
}
SOFT: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "much": {"soft_bird": {"alpha": 3.0}},
    "gaussian": {"soft_bird": {"alpha": 1.5, "entropy": "gaussian"}},
    "value target": {"dreamer": {"value_target_every": 9}},
}


def confidence(dream: Imagined) -> np.ndarray:
    states = dream.states
    return confidence_weight(normal_log_prob(states.stoch, states.mean, states.std).sum(-1))


def real_entropy(setup: Setup) -> float:
    """w_MI times the mean entropy over the batch's own states."""
    settings = setup.config.bird
    if not settings.entropy_weight:
        return 0.0
    noise = setup.noise["entropy"] if settings.entropy == "tanh_normal" else torch.zeros(0)
    return settings.entropy_weight * float(
        entropy(*setup.policy(setup.real().feature), settings.entropy, array(noise)).mean()
    )


@pytest.fixture(params=BIRD)
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup("bird", **BIRD[request.param])


def test_birds_actor_loss_weights_returns_by_confidence_and_adds_real_entropy(setup: Setup) -> None:
    dream = setup.imagine()
    each = confidence(dream) * setup.weights(dream) * setup.returns(dream)
    np.testing.assert_allclose(setup.losses()["actor"].item(), -each.mean() - real_entropy(setup), rtol=1e-10)


def test_birds_value_loss_is_weighted_by_confidence_if_asked_for(setup: Setup) -> None:
    dream = setup.imagine()
    weights = setup.weights(dream)
    if setup.config.bird.confidence_on_value:
        weights = confidence(dream) * weights
    expected = (weights * setup.squared_error(dream, setup.returns(dream))).mean()
    np.testing.assert_allclose(setup.losses()["value"].item(), expected, rtol=1e-10)


def test_confidences_are_not_all_alike_in_these_tests(setup: Setup) -> None:
    weights = confidence(setup.imagine())
    assert weights.std() > 0.3


def test_birds_actor_gradient_takes_confidence_and_real_states_as_given(setup: Setup) -> None:
    actor = setup.behavior.acting
    gradients = setup.gradients("actor", actor)
    base = setup.imagine()
    weights = confidence(base) * setup.weights(base)

    def objective() -> float:
        return -float((weights * setup.returns(setup.imagine(base.seen))).mean()) - real_entropy(setup)

    check_slopes(actor, gradients, objective, entries=2)


def test_birds_value_gradient_takes_confidence_and_returns_as_given(setup: Setup) -> None:
    base = setup.imagine()
    weights, returns = setup.weights(base), setup.returns(base)
    if setup.config.bird.confidence_on_value:
        weights = confidence(base) * weights
    head = setup.behavior.value
    gradients = setup.gradients("value", head)
    check_slopes(head, gradients, lambda: float((weights * setup.squared_error(base, returns)).mean()), entries=2)


@pytest.mark.parametrize("algorithm", ["bird", "soft_bird"])
def test_no_loss_reaches_the_posterior_and_the_value_loss_only_the_value_head(algorithm: str) -> None:
    setup = Setup(algorithm, bird={"entropy_weight": 0.7})
    losses = setup.losses()
    for loss in losses.values():
        assert torch.autograd.grad(loss, list(setup.posterior), allow_unused=True, retain_graph=True) == (None,) * 4
    assert reached(losses["value"], setup.world_model) == set()
    assert reached(losses["value"], setup.behavior.acting) == set()


def test_bird_that_trusts_every_dream_alike_is_dreamer_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bird, "confidence_weight", lambda log_prob, _: torch.ones_like(log_prob[0]))
    dreamer = make_learner()
    other = make_learner(tiny_config(algorithm="bird", bird={"entropy_weight": 0.0}))
    for _ in range(3):
        expected, actual = dreamer.update(1).metrics, other.update(1).metrics
        assert {name: actual[name] for name in expected} == expected
    assert_equal(parameters(other), parameters(dreamer))


def test_bird_itself_is_not_dreamer() -> None:
    dreamer, other = make_learner(), make_learner(tiny_config(algorithm="bird", bird={"entropy_weight": 0.0}))
    for learner in (dreamer, other):
        learner.update(1)
    with pytest.raises(AssertionError):
        assert_equal(parameters(other), parameters(dreamer), "behavior.")
    assert_equal(parameters(other), parameters(dreamer), "world_model.")


def test_soft_reward_adds_alpha_nats_of_entropy() -> None:
    reward, entropies = torch.randn(2, 4, 3, dtype=torch.float64)
    actual = soft_reward(reward, entropies, 0.2)
    np.testing.assert_allclose(array(actual), array(reward) + 0.2 * array(entropies), rtol=1e-12)
    assert soft_reward(reward, entropies, 0.0).equal(reward)


def soft_returns(setup: Setup, dream: Imagined, states: np.ndarray) -> np.ndarray:
    """λ-returns of r + alpha · entropy of the policy at `states`."""
    settings = setup.config.soft_bird
    noise = array(setup.noise["entropy"]) if settings.entropy == "tanh_normal" else np.zeros(0)
    bonus = entropy(*setup.policy(states), settings.entropy, noise)
    return setup.returns(dream, dream.reward + settings.alpha * bonus)


@pytest.mark.parametrize("case", SOFT)
def test_soft_birds_losses_are_dreamers_with_the_soft_reward(case: str) -> None:
    setup = Setup("soft_bird", **SOFT[case])
    dream, losses = setup.imagine(), setup.losses()
    returns, weights = soft_returns(setup, dream, dream.feature), setup.weights(dream)
    np.testing.assert_allclose(losses["actor"].item(), -(weights * returns).mean(), rtol=1e-10)
    expected = (weights * setup.squared_error(dream, returns)).mean()
    np.testing.assert_allclose(losses["value"].item(), expected, rtol=1e-10)


@pytest.mark.parametrize("case", SOFT)
def test_soft_birds_entropy_moves_the_policy_where_it_is_and_not_the_states(case: str) -> None:
    setup = Setup("soft_bird", **SOFT[case])
    actor = setup.behavior.acting
    gradients = setup.gradients("actor", actor)
    base = setup.imagine()
    weights = setup.weights(base)

    def objective() -> float:
        return -float((weights * soft_returns(setup, setup.imagine(base.seen), base.feature)).mean())

    check_slopes(actor, gradients, objective, entries=2)


def test_soft_bird_without_entropy_is_dreamer_for_the_same_noise() -> None:
    soft, dreamer = Setup("soft_bird", soft_bird={"alpha": 0.0}), Setup()
    for name in dreamer.noise:
        soft.noise[name] = dreamer.noise[name]
    expected, actual = dreamer.losses(), soft.losses()
    for name in expected:
        assert actual[name].equal(expected[name]), name
        ours, theirs = (one.gradients(name, one.behavior.groups()[name].module) for one in (soft, dreamer))
        assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True)), name
