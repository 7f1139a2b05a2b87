from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from common.sequence import IMAGE_SHAPE
from learner.learner import Learner
from learner.policy import Policy, PolicyState
from tests.learner.reference.layers import array, convolution
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.tiny import ACTIONS, random_batches, randomise, tiny_config

ENVIRONMENTS = 3


def make(noise: float = 0.3, seed: int = 0) -> Policy:
    config = tiny_config()
    policy = Policy(replace(config, acting=replace(config.acting, noise=noise)), ACTIONS, seed)
    torch.manual_seed(0)
    weights = Learner(config, ACTIONS, random_batches()).weights()
    policy.load_weights(weights)
    randomise(policy.parts, size=0.3)
    return policy


def indifferent(noise: float) -> Policy:
    """A policy whose samples are all near zero: mean 0, standard deviation 1e-4."""
    policy = make(noise)
    output = policy.acting.network[-1]
    output.weight.zero_()
    output.bias[:ACTIONS] = 0.0
    output.bias[ACTIONS:] = -50.0
    return policy


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE_SHAPE), dtype=np.uint8)


def test_the_state_is_the_rssm_filter_over_images_and_returned_actions() -> None:
    policy = make()
    sizes = policy.config.world_model
    reference = ReferenceRSSM(policy.rssm, sizes.stoch, sizes.deter, sizes.min_std)
    state, action = None, np.zeros((ENVIRONMENTS, ACTIONS))
    previous, no_noise = reference.zero(ENVIRONMENTS), np.zeros((ENVIRONMENTS, sizes.stoch))
    for step in range(4):
        image = images(ENVIRONMENTS, seed=step)
        embed = image.transpose(0, 3, 1, 2) / 255.0 - 0.5
        for layer in policy.encoder.layers:
            embed = np.maximum(convolution(layer, embed, stride=2), 0.0)
        prior = reference.prior(previous, action, no_noise)
        expected = reference.posterior(prior, embed.reshape(ENVIRONMENTS, -1), no_noise)
        action, state = policy.act(image, state, training=True)
        for name in ("deter", "mean", "std"):
            actual = array(getattr(state.latent, name))
            np.testing.assert_allclose(actual, getattr(expected, name), rtol=1e-4, atol=1e-5, err_msg=name)
        previous = Belief(*(array(getattr(state.latent, name)) for name in ("deter", "mean", "std", "stoch")))


def test_the_filters_sample_is_drawn_from_the_posterior() -> None:
    _, state = make().act(images(1).repeat(2000, axis=0))
    noise = (array(state.latent.stoch) - array(state.latent.mean)) / array(state.latent.std)  # (2000, S)
    assert abs(noise.mean()) < 5 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / noise.size)


@pytest.mark.parametrize("training", [False, True])
def test_what_is_returned_is_bounded_and_is_what_the_filter_sees_next(training: bool) -> None:
    action, state = make(noise=2.0).act(images(50), training=training)
    assert action.dtype == np.float32
    assert action.shape == (50, ACTIONS)
    assert abs(action).max() <= 1.0
    assert bool((abs(action) == 1.0).mean() > 0.2) is training
    np.testing.assert_array_equal(action, state.action.numpy())


def test_one_image_gives_one_action() -> None:
    policy = make()
    action, state = policy.act(images(1)[0])
    assert action.shape == (ACTIONS,)
    again, _ = policy.act(images(1)[0], state)
    assert again.shape == (ACTIONS,)


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_training_adds_noise_of_the_configured_standard_deviation(noise: float) -> None:
    action, _ = indifferent(noise).act(images(1).repeat(2000, axis=0), training=True)
    error = noise / np.sqrt(2 * action.size)
    assert abs(action.astype(float).std() - noise) < 5 * error
    assert abs(action.astype(float).mean()) < 5 * noise / np.sqrt(action.size)


def test_evaluation_adds_none() -> None:
    action, _ = indifferent(0.3).act(images(20))
    assert abs(action).max() < 1e-3


def histories(is_first: np.ndarray | None) -> list[tuple[np.ndarray, PolicyState]]:
    """The same second image after two different first ones, with the same random numbers."""
    results = []
    for seed in (1, 2):
        policy = make(seed=5)
        _, state = policy.act(images(ENVIRONMENTS, seed))
        results.append(policy.act(images(ENVIRONMENTS, 3), state, is_first=is_first))
    return results


def test_is_first_forgets_the_past_of_those_environments_alone() -> None:
    (action, state), (other_action, other_state) = histories(np.array([False, True, False]))
    same = [np.array_equal(a, b) for a, b in zip(action, other_action, strict=True)]
    assert same == [False, True, False]
    assert torch.equal(state.latent.deter[1], other_state.latent.deter[1])


def test_without_is_first_the_past_matters() -> None:
    (action, _), (other_action, _) = histories(None)
    assert not any(np.array_equal(a, b) for a, b in zip(action, other_action, strict=True))


def test_is_first_is_a_start_from_nothing() -> None:
    warm, cold = make(seed=5), make(seed=5)
    _, state = warm.act(images(ENVIRONMENTS, 1))
    cold.act(images(ENVIRONMENTS, 2))  # as many random numbers as the other has drawn
    reset, _ = warm.act(images(ENVIRONMENTS, 3), state, is_first=np.ones(ENVIRONMENTS, np.bool_))
    fresh, _ = cold.act(images(ENVIRONMENTS, 3))
    np.testing.assert_array_equal(reset, fresh)


def test_acting_leaves_the_given_state_alone() -> None:
    policy = make()
    _, state = policy.act(images(ENVIRONMENTS))
    before = [part.clone() for part in (*state.latent, state.action)]
    policy.act(images(ENVIRONMENTS), state, is_first=np.ones(ENVIRONMENTS, np.bool_), training=True)
    for part, was in zip((*state.latent, state.action), before, strict=True):
        assert torch.equal(part, was)


def test_a_seed_decides_the_actions() -> None:
    first, again, other = (make(seed=seed).act(images(2), training=True)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_learner_weights_are_taken_over_whole_and_by_copy() -> None:
    learner = Learner(tiny_config(), ACTIONS, random_batches())
    learner.update(1)
    policy = Policy(tiny_config(), ACTIONS)
    weights = learner.weights()
    policy.load_weights(weights)
    for name, tensor in policy.parts.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name])
    kept = {name: value.copy() for name, value in weights.items()}
    learner.update(1)
    for name, value in weights.items():
        np.testing.assert_array_equal(value, kept[name])
        value += 1.0
        np.testing.assert_array_equal(policy.parts.state_dict()[name].numpy(), kept[name])


def test_the_weights_are_the_learners_by_name() -> None:
    learner = Learner(tiny_config(), ACTIONS, random_batches())
    trained = {
        "encoder": learner.world_model.encoder,
        "rssm": learner.world_model.rssm,
        "reward": learner.world_model.reward,
        "acting": learner.behavior.acting,
    }
    weights = learner.weights()
    assert weights.keys() == {f"{part}.{name}" for part, m in trained.items() for name, _ in m.named_parameters()}
    for part, module in trained.items():
        for name, parameter in module.named_parameters():
            np.testing.assert_array_equal(weights[f"{part}.{name}"], array(parameter))


def test_a_missing_weight_is_an_error() -> None:
    weights = Learner(tiny_config(), ACTIONS, random_batches()).weights()
    del weights["rssm.cell.bias_hh"]
    with pytest.raises(KeyError, match=r"rssm\.cell\.bias_hh"):
        Policy(tiny_config(), ACTIONS).load_weights(weights)
