from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from learner.plain.model import observe as observe_by_steps
from learner.world_model.rssm import RSSM, State
from tests.learner.reference.layers import array
from tests.learner.reference.rssm import ReferenceRSSM
from tests.learner.small_rssm import (
    ACTION,
    DETER,
    EMBED,
    STOCH,
    assert_same,
    belief,
    make_reference,
    make_rssm,
    random_state,
)

L, B, N = 6, 3, 4


@pytest.fixture
def rssm() -> RSSM:
    return make_rssm()


@pytest.fixture
def reference(rssm: RSSM) -> ReferenceRSSM:
    return make_reference(rssm)


Observe = Callable[..., tuple[State, State]]
Window = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@pytest.fixture
def window() -> Window:
    """embed, action, is_first, noise. One sequence starts an episode, one starts a second episode in the middle."""
    generator = torch.Generator().manual_seed(1)
    embed = torch.randn(L, B, EMBED, generator=generator, dtype=torch.float64)
    action = torch.rand(L, B, ACTION, generator=generator, dtype=torch.float64) * 2 - 1
    is_first = torch.zeros(L, B, dtype=torch.bool)
    is_first[0, 0] = True
    is_first[3, 1] = True
    noise = torch.randn(L, B, STOCH, generator=generator, dtype=torch.float64)
    return embed, action, is_first, noise


def arrays(window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    embed, action, is_first, noise = window
    return array(embed), array(action), is_first.numpy(), array(noise)


def test_the_initial_state_is_zero(rssm: RSSM) -> None:
    state = rssm.initial(B)
    assert [tuple(part.shape) for part in state] == [(B, DETER), (B, STOCH), (B, STOCH), (B, STOCH)]
    assert not any(part.any() for part in state)


def test_the_feature_is_stoch_then_deter(rssm: RSSM) -> None:
    state = random_state(N, torch.Generator().manual_seed(2))
    torch.testing.assert_close(state.feature, torch.cat([state.stoch, state.deter], dim=-1), rtol=0, atol=0)


def test_a_prior_step_follows_the_equations(rssm: RSSM, reference: ReferenceRSSM) -> None:
    generator = torch.Generator().manual_seed(3)
    previous = random_state(N, generator)
    action = torch.randn(N, ACTION, generator=generator, dtype=torch.float64)
    noise = torch.randn(N, STOCH, generator=generator, dtype=torch.float64)
    expected = reference.prior(belief(previous), array(action), array(noise))
    assert_same(rssm.prior_step(previous, action, noise), expected)


def test_a_posterior_step_follows_the_equations_and_keeps_the_deterministic_state(
    rssm: RSSM, reference: ReferenceRSSM
) -> None:
    generator = torch.Generator().manual_seed(4)
    prior = random_state(N, generator)
    embed = torch.randn(N, EMBED, generator=generator, dtype=torch.float64)
    noise = torch.randn(N, STOCH, generator=generator, dtype=torch.float64)
    posterior = rssm.posterior_step(prior, embed, noise)
    assert_same(posterior, reference.posterior(belief(prior), array(embed), array(noise)))
    torch.testing.assert_close(posterior.deter, prior.deter, rtol=0, atol=0)


def test_no_standard_deviation_is_below_the_minimum(rssm: RSSM, window: Window) -> None:
    with torch.no_grad():
        rssm.prior_output.bias[STOCH:] = -50.0
        rssm.posterior_output.bias[STOCH:] = -50.0
    for state in rssm.observe(*window):
        np.testing.assert_allclose(array(state.std), 0.1, atol=1e-6)


@pytest.mark.parametrize("observe", [RSSM.observe, observe_by_steps], ids=["whole", "by steps"])
def test_observe_follows_the_equations_step_by_step(
    observe: Observe, rssm: RSSM, reference: ReferenceRSSM, window: Window
) -> None:
    posterior, prior = observe(rssm, *window)
    expected_posterior, expected_prior = reference.observe(*arrays(window))
    assert_same(posterior, expected_posterior)
    assert_same(prior, expected_prior, fields=("deter", "mean", "std"))


def test_a_first_row_forgets_everything_before_it(rssm: RSSM, window: Window) -> None:
    embed, action, is_first, noise = window
    posterior, prior = rssm.observe(embed, action, is_first, noise)
    only = slice(1, 2)
    fresh_action = action[3:, only].clone()
    fresh_action[0] = 0.0
    no_first = torch.zeros_like(is_first[3:, only])
    alone = rssm.observe(embed[3:, only], fresh_action, no_first, noise[3:, only])
    for whole, part in zip((posterior, prior), alone, strict=True):
        for name in ("deter", "mean", "std"):
            torch.testing.assert_close(
                getattr(whole, name)[3:, only], getattr(part, name), rtol=1e-11, atol=1e-12, msg=name
            )


def test_no_gradient_crosses_a_first_row(rssm: RSSM, window: Window) -> None:
    embed, action, is_first, noise = window
    embed.requires_grad_()
    action.requires_grad_()
    posterior, prior = rssm.observe(embed, action, is_first, noise)
    (posterior.feature[3:].sum() + prior.mean[3:].sum()).backward()
    assert embed.grad is not None
    assert action.grad is not None
    assert not embed.grad[:3, 1].any()
    assert not action.grad[:4, 1].any()
    assert embed.grad[:3, 2].any()
    assert action.grad[:4, 2].any()


def test_the_first_action_of_a_window_inside_an_episode_is_fed_as_stored(rssm: RSSM, window: Window) -> None:
    embed, action, is_first, noise = window
    moved = action.clone()
    moved[0] = -moved[0]
    _, prior = rssm.observe(embed, action, is_first, noise)
    _, other = rssm.observe(embed, moved, is_first, noise)
    differs = (prior.deter[0] != other.deter[0]).any(dim=-1)
    assert differs.tolist() == [False, True, True]


def outputs_and_gradients(observe: Observe, rssm: RSSM, window: Window) -> tuple[list[torch.Tensor], ...]:
    """Every output, and the gradients of a random projection of them for every parameter, embed and action."""
    embed, action, is_first, noise = window
    embed, action = embed.clone().requires_grad_(), action.clone().requires_grad_()
    posterior, prior = observe(rssm, embed, action, is_first, noise)
    outputs = [*posterior, prior.deter, prior.mean, prior.std]
    generator = torch.Generator().manual_seed(5)
    total = sum((torch.randn(o.shape, generator=generator, dtype=o.dtype) * o).sum() for o in outputs)
    gradients = torch.autograd.grad(total, [*rssm.parameters(), embed, action])
    return outputs, list(gradients)


def test_observe_equals_a_loop_of_single_steps_in_values_and_gradients(rssm: RSSM, window: Window) -> None:
    fast = outputs_and_gradients(RSSM.observe, rssm, window)
    slow = outputs_and_gradients(observe_by_steps, rssm, window)
    names = [name for name, _ in rssm.named_parameters()]
    for name, a, b in zip([*names, "embed", "action"], fast[1], slow[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=f"gradient of {name}")
        assert b.any(), name
    for a, b in zip(fast[0], slow[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
