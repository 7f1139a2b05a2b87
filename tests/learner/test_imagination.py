from __future__ import annotations

import numpy as np
import pytest
import torch

from learner.world_model.rssm import RSSM, State
from tests.learner.reference.layers import array
from tests.learner.reference.rssm import ReferenceRSSM
from tests.learner.small_rssm import (
    ACTION,
    DETER,
    STOCH,
    assert_same,
    belief,
    make_reference,
    make_rssm,
    random_state,
)

H, N = 5, 4


@pytest.fixture
def rssm() -> RSSM:
    return make_rssm()


@pytest.fixture
def reference(rssm: RSSM) -> ReferenceRSSM:
    return make_reference(rssm)


class LinearPolicy:
    """tanh(W · feature + action noise), remembering what it saw."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weight = (
            0.5 * torch.randn(ACTION, STOCH + DETER, generator=generator, dtype=torch.float64)
        ).requires_grad_()
        self.seen: list[torch.Tensor] = []

    def __call__(self, feature: torch.Tensor, action_noise: torch.Tensor) -> torch.Tensor:
        self.seen.append(feature)
        return torch.tanh(feature @ self.weight.T + action_noise)


Dream = tuple[State, torch.Tensor, torch.Tensor]


@pytest.fixture
def dream() -> Dream:
    """start, noise, action_noise."""
    generator = torch.Generator().manual_seed(6)
    start = random_state(N, generator)
    noise = torch.randn(H, N, STOCH, generator=generator, dtype=torch.float64)
    return start, noise, torch.randn(H, N, ACTION, generator=generator, dtype=torch.float64)


def test_imagine_follows_the_equations_and_leaves_the_start_out(
    rssm: RSSM, reference: ReferenceRSSM, dream: Dream
) -> None:
    start, noise, action_noise = dream
    policy = LinearPolicy(7)
    states, actions = rssm.imagine(policy, start, noise, action_noise)
    weight = array(policy.weight)
    expected, expected_actions, _ = reference.imagine(
        lambda tau, feature: np.tanh(feature @ weight.T + array(action_noise)[tau]), belief(start), array(noise)
    )
    assert states.deter.shape == (H, N, DETER)
    assert actions.shape == (H, N, ACTION)
    assert_same(states, expected)
    np.testing.assert_allclose(array(actions), expected_actions, rtol=1e-11, atol=1e-12)


def test_the_policy_sees_detached_features(rssm: RSSM, dream: Dream) -> None:
    policy = LinearPolicy(7)
    start = State(*(part.clone().requires_grad_() for part in dream[0]))
    rssm.imagine(policy, start, *dream[1:])
    assert len(policy.seen) == H
    assert not any(feature.requires_grad for feature in policy.seen)


def test_gradients_reach_earlier_actions_through_the_dynamics_but_not_through_what_the_policy_saw(
    rssm: RSSM, reference: ReferenceRSSM, dream: Dream
) -> None:
    """Central differences of the policy's weight, with the features it saw held fixed."""
    start, noise, action_noise = dream
    policy = LinearPolicy(7)
    states, actions = rssm.imagine(policy, start, noise, action_noise)
    projection = torch.randn(H, N, STOCH + DETER, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    ((projection * states.feature).sum() + actions.sum()).backward()

    weight = array(policy.weight)
    _, _, seen = reference.imagine(
        lambda tau, feature: np.tanh(feature @ weight.T + array(action_noise)[tau]), belief(start), array(noise)
    )

    def objective(w: np.ndarray) -> float:
        imagined, acted, _ = reference.imagine(
            lambda tau, feature: np.tanh(seen[tau] @ w.T + array(action_noise)[tau]), belief(start), array(noise)
        )
        return float((array(projection) * imagined.feature).sum() + acted.sum())

    assert policy.weight.grad is not None
    step = 1e-5
    for index in np.ndindex(weight.shape):
        nudge = np.zeros_like(weight)
        nudge[index] = step
        slope = (objective(weight + nudge) - objective(weight - nudge)) / (2 * step)
        np.testing.assert_allclose(policy.weight.grad[index].item(), slope, rtol=1e-6, atol=1e-7)
