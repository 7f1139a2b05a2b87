"""The actors' filter against the encoder and the RSSM that it stands for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Config
from common.presets import paper, small
from learner import filter as filter_module
from learner.behaviors.behavior import Foresight
from learner.pictures import normalise
from learner.policy import Policy, PolicyState
from tests.learner.tiny import randomise, tiny_config

ACTIONS = 3
CONFIGS = {"tiny": tiny_config(), "small": small(), "paper": paper()}


def make(config: Config, seed: int = 0) -> Policy:
    torch.manual_seed(0)
    policy = Policy(config, ACTIONS, seed)
    randomise(policy.parts, size=0.02, seed=1)
    return policy


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


@torch.no_grad()
def plain_act(policy: Policy, image: np.ndarray, state: PolicyState, training: bool) -> tuple[Tensor, PolicyState]:
    """One step as the definition reads: encoder, prior, posterior, actor, with the same draws in the same order."""
    noise = policy._noise(len(image), policy.rssm.stoch_size)
    prior = policy.rssm.prior_step(state.latent, state.action, noise)
    latent = policy.rssm.posterior_step(prior, policy.encoder(normalise(torch.tensor(image))), noise)
    shapes = policy.acting.noise_shapes(len(image), training)
    drawn = {name: policy._noise(*shape) for name, shape in shapes.items()}
    action = policy.acting.act(Foresight(policy.rssm, policy.reward), latent, drawn, training)
    if training:
        action = action + policy.config.acting.noise * policy._noise(len(image), ACTIONS)
    action = action.clamp(-1, 1)
    return action, PolicyState(latent, action)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("environments", [1, 3, 16])
@pytest.mark.parametrize("size", CONFIGS)
def test_acting_equals_the_plain_policy(size: str, environments: int, training: bool) -> None:
    fast, plain = make(CONFIGS[size], seed=4), make(CONFIGS[size], seed=4)
    state, expected_state = None, plain.initial(environments)
    for step in range(4):
        image = images(environments, step)
        action, state = fast.act(image, state, training=training)
        expected, expected_state = plain_act(plain, image, expected_state, training)
        np.testing.assert_allclose(action, expected, rtol=0, atol=1e-6)
        for part, expected_part in zip(state.latent, expected_state.latent, strict=True):
            np.testing.assert_allclose(part, expected_part, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 10**9])
@pytest.mark.parametrize("size", CONFIGS)
def test_products_and_convolutions_embed_alike(size: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, image = make(CONFIGS[size]), torch.tensor(images(2, seed=0))
    monkeypatch.setattr(filter_module, "WINDOW_ELEMENTS", limit)
    expected = policy.encoder(normalise(image))
    torch.testing.assert_close(policy.filter.embed(image), expected, rtol=1e-5, atol=1e-6)


def test_few_images_are_products_and_many_are_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, convolutions = make(small()), []
    convolve = torch.nn.functional.conv2d
    monkeypatch.setattr(
        filter_module.functional, "conv2d", lambda x, *args: convolutions.append(len(x)) or convolve(x, *args)
    )
    policy.filter.embed(torch.tensor(images(1, seed=0)))
    assert convolutions == []
    policy.filter.embed(torch.tensor(images(16, seed=0)))
    assert convolutions == [16, 16]


def test_weights_are_loaded_where_they_lie() -> None:
    policy, other = make(small(), seed=4), Policy(small(), ACTIONS, seed=4)
    memory = {name: tensor.data_ptr() for name, tensor in policy.tensors.items()}
    weights = {name: tensor.numpy() for name, tensor in other.tensors.items()}
    assert not np.array_equal(policy.act(images(2, 0))[0], other.act(images(2, 0))[0])
    policy.load_weights(weights)
    policy.reseed(9)
    other.reseed(9)
    np.testing.assert_array_equal(policy.act(images(2, 0))[0], other.act(images(2, 0))[0])
    assert {name: tensor.data_ptr() for name, tensor in policy.tensors.items()} == memory


def test_weights_that_may_not_be_written_are_loaded_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    policy = make(small())
    weights = {name: tensor.numpy().copy() for name, tensor in Policy(small(), ACTIONS).tensors.items()}
    for value in weights.values():
        value.setflags(write=False)  # as they come out of Ray's object store
    policy.load_weights(weights)
    assert not recwarn.list


def test_the_filter_keeps_no_graph() -> None:
    policy = make(replace(small(), envs_per_actor=1))
    _, state = policy.act(images(2, 0), training=True)
    assert all(part.is_inference() and not part.requires_grad for part in (*state.latent, state.action))
