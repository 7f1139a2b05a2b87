from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from common.config import ActingConfig, DreamerConfig
from common.presets import dreamer_arxiv
from learner.behaviors.actor import Actor
from learner.behaviors.behavior import Foresight
from learner.world_model.state import State
from tests.learner.reference.densities import tanh_normal_log_prob
from tests.learner.reference.layers import array, elu_mlp, softplus

FEATURE, ACTIONS = 9, 3
SMALL = DreamerConfig(actor_layers=2, units=8)


def make(config: DreamerConfig, scale: float = 1.0) -> Actor:
    torch.manual_seed(0)
    actor = Actor(FEATURE, ACTIONS, config).double()
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter)).mul_(scale)
    return actor


def features(scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, 5, FEATURE, generator=generator, dtype=torch.float64)


def test_mean_and_std_follow_the_released_form() -> None:
    actor, feature = make(SMALL), features()
    distribution = actor.distribution(feature)
    raw_mean, raw_std = np.split(elu_mlp(actor, array(feature)), 2, axis=-1)
    np.testing.assert_allclose(array(distribution.mean), 5.0 * np.tanh(raw_mean / 5.0), rtol=1e-11)
    expected = softplus(raw_std + np.log(np.exp(5.0) - 1.0)) + 1e-4
    np.testing.assert_allclose(array(distribution.std), expected, rtol=1e-11)


def test_an_untrained_actor_is_centred_and_starts_at_the_initial_std() -> None:
    distribution = Actor(FEATURE, ACTIONS, SMALL).double().distribution(torch.zeros(4, FEATURE, dtype=torch.float64))
    np.testing.assert_allclose(array(distribution.mean), 0.0, atol=1e-12)
    np.testing.assert_allclose(array(distribution.std), 5.0001, rtol=1e-6)


def test_the_mean_is_bounded_and_the_std_stays_positive_for_any_feature() -> None:
    distribution = make(SMALL, scale=20.0).distribution(features(scale=1e3))
    assert array(distribution.mean).max() > 4.99
    assert (abs(array(distribution.mean)) <= 5.0).all()
    assert array(distribution.std).min() >= 1e-4


def test_the_arxiv_form_leaves_the_mean_free_and_the_std_a_plain_softplus() -> None:
    config = replace(dreamer_arxiv().dreamer, actor_layers=2, units=8)
    actor, feature = make(config), features(scale=20.0)
    distribution = actor.distribution(feature)
    raw_mean, raw_std = np.split(elu_mlp(actor, array(feature)), 2, axis=-1)
    np.testing.assert_allclose(array(distribution.mean), raw_mean, rtol=1e-11)
    np.testing.assert_allclose(array(distribution.std), softplus(raw_std) + config.min_std, rtol=1e-11)
    assert abs(raw_mean).max() > 5.0


@pytest.mark.parametrize("layers", [1, 4])
def test_the_actor_has_as_many_hidden_layers_as_configured(layers: int) -> None:
    actor = Actor(FEATURE, ACTIONS, replace(SMALL, actor_layers=layers))
    sizes = [(layer.in_features, layer.out_features) for layer in actor.modules() if isinstance(layer, nn.Linear)]
    assert sizes == [(FEATURE, 8), *[(8, 8)] * (layers - 1), (8, 2 * ACTIONS)]


def test_called_on_features_and_noise_it_samples_by_reparameterisation() -> None:
    actor, feature = make(SMALL), features()
    noise = torch.randn(2, 5, ACTIONS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    distribution = actor.distribution(feature)
    expected = np.tanh(array(distribution.mean) + array(distribution.std) * array(noise))
    np.testing.assert_allclose(array(actor(feature, noise)), expected, rtol=1e-12)


def densest(actor: Actor, feature: torch.Tensor, noise: torch.Tensor) -> np.ndarray:
    """For each environment by itself, the sample where the density is highest."""
    distribution = actor.distribution(feature)
    mean, std = array(distribution.mean), array(distribution.std)
    actions = np.zeros_like(mean)
    for environment in range(len(mean)):
        best = -np.inf
        for sample in array(noise)[:, environment]:
            pretanh = mean[environment] + std[environment] * sample
            density = float(tanh_normal_log_prob(pretanh, mean[environment], std[environment]))
            if density > best:
                best, actions[environment] = density, np.tanh(pretanh)
    return actions


def act(actor: Actor, feature: torch.Tensor, noise: torch.Tensor, training: bool) -> torch.Tensor:
    """By the interface: a state of this feature, and a model that an actor network does not look into."""
    stoch, deter = feature.split([4, FEATURE - 4], -1)
    return actor.act(cast(Foresight, None), State(deter, stoch, stoch, stoch), {"action": noise}, training)


def acting_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (5, F), noise of a sample (5, A) and of a mode (7, 5, A)."""
    generator = torch.Generator().manual_seed(3)
    one = torch.randn(5, ACTIONS, generator=generator, dtype=torch.float64)
    return features()[0], one, torch.randn(7, 5, ACTIONS, generator=generator, dtype=torch.float64)


def test_evaluation_acts_with_the_densest_sample_of_each_environment() -> None:
    actor = make(SMALL)
    feature, _, many = acting_inputs()
    expected = densest(actor, feature, many)
    np.testing.assert_allclose(array(act(actor, feature, many, training=False)), expected, rtol=1e-10)
    alone = act(actor, feature[2:3], many[:, 2:3], training=False)
    np.testing.assert_allclose(array(alone)[0], expected[2], rtol=1e-10)


def test_training_acts_with_a_sample_or_with_the_mode_as_configured() -> None:
    actor = make(SMALL)
    feature, one, many = acting_inputs()
    np.testing.assert_allclose(array(act(actor, feature, one, training=True)), array(actor(feature, one)), rtol=1e-12)
    by_mode = Actor(FEATURE, ACTIONS, SMALL, ActingConfig(train_action="mode")).double()
    by_mode.load_state_dict(actor.state_dict())
    expected = densest(actor, feature, many)
    np.testing.assert_allclose(array(act(by_mode, feature, many, training=True)), expected, rtol=1e-10)


def test_the_noise_asked_for_fits_the_way_of_acting() -> None:
    sampling = Actor(FEATURE, ACTIONS, SMALL, ActingConfig(mode_samples=7))
    assert sampling.noise_shapes(5, training=True) == {"action": (5, ACTIONS)}
    assert sampling.noise_shapes(5, training=False) == {"action": (7, 5, ACTIONS)}
    by_mode = Actor(FEATURE, ACTIONS, SMALL, ActingConfig(train_action="mode", mode_samples=7))
    assert by_mode.noise_shapes(5, training=True) == {"action": (7, 5, ACTIONS)}
