"""Dreamer's actor and value loss and their gradients, against the whole of imagination in float64 numpy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from learner.behaviors.dreamer import Dreamer
from learner.world_model import WorldModel
from learner.world_model.state import State
from tests.learner.reference import losses as reference
from tests.learner.reference.layers import array, elu_mlp, sigmoid, softplus
from tests.learner.reference.returns import cumulative_discount, lambda_return
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, randomise, tiny_config

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "no discount weights": {"dreamer": {"discount_weights": False}},
    "value target": {"dreamer": {"value_target_every": 100}},
    "discount head": {"world_model": {"discount_head": True}},
    "arxiv actor": {"dreamer": {"mean_scale": 0.0, "init_std": 0.0}},
}
STEP = 1e-5


class Imagined(NamedTuple):
    """What the reference dreamt: the features that the policy saw, and (H, N, ...) of what followed."""

    seen: list[np.ndarray]
    feature: np.ndarray
    reward: np.ndarray
    value: np.ndarray
    discount: np.ndarray


class Setup:
    """World model and behaviour in float64 with random parameters, posterior states (L, B, ...), and fixed noise."""

    def __init__(self, case: str) -> None:
        torch.manual_seed(0)
        self.config = tiny_config(**CASES[case])
        self.world_model = WorldModel(self.config, ACTIONS)
        self.behavior = Dreamer(self.config, self.world_model.rssm.feature_size, ACTIONS)
        randomise(self.world_model, size=0.3, seed=1)
        randomise(self.behavior, size=0.3, seed=2)
        self.world_model.double()
        self.behavior.double()
        generator = torch.Generator().manual_seed(3)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        sizes = self.config.world_model
        parts = (randn(LENGTH, BATCH, size) for size in (sizes.deter, sizes.stoch, sizes.stoch, sizes.stoch))
        self.posterior = State(*(part.requires_grad_() for part in parts))
        starts = self.world_model.start_count(BATCH, LENGTH)
        self.noise = {name: randn(*shape) for name, shape in self.behavior.noise_shapes(starts).items()}

    def losses(self) -> dict[str, torch.Tensor]:
        return self.behavior.losses(self.world_model, self.posterior, self.noise)[0]

    def act(self, feature: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """tanh(mean + std · noise) with the table's mean and std, or the arXiv text's."""
        mean, raw = np.split(elu_mlp(self.behavior.acting, feature), 2, axis=-1)
        settings = self.config.dreamer
        if settings.mean_scale:
            mean = settings.mean_scale * np.tanh(mean / settings.mean_scale)
        shift = np.log(np.exp(settings.init_std) - 1.0) if settings.init_std else 0.0
        return np.tanh(mean + (softplus(raw + shift) + 1e-4) * noise)

    def imagine(self, seen: list[np.ndarray] | None = None) -> Imagined:
        """H steps from every start; with `seen`, the policy looks at these features instead of where it is."""
        sizes = self.config.world_model
        posterior = self.posterior
        if self.world_model.discount_head is not None:
            posterior = State(*(part[:-1] for part in posterior))
        start = Belief(*(array(part).reshape(-1, part.shape[-1]) for part in posterior))
        rssm = ReferenceRSSM(self.world_model.rssm, sizes.stoch, sizes.deter, sizes.min_std)
        action_noise = array(self.noise["action"])
        states, _, saw = rssm.imagine(
            lambda tau, feature: self.act(feature if seen is None else seen[tau], action_noise[tau]),
            start,
            array(self.noise["prior"]),
        )
        feature = states.feature
        head = self.behavior.value_target or self.behavior.value
        discount = np.full(feature.shape[:2], 0.99)
        if self.world_model.discount_head is not None:
            discount = sigmoid(elu_mlp(self.world_model.discount_head, feature)[..., 0])
        return Imagined(
            seen=saw,
            feature=feature,
            reward=elu_mlp(self.world_model.reward, feature)[..., 0],
            value=elu_mlp(head, feature)[..., 0],
            discount=discount,
        )

    def returns(self, dream: Imagined) -> np.ndarray:
        return lambda_return(dream.reward, dream.value, dream.discount, 0.95)

    def weights(self, dream: Imagined) -> np.ndarray:
        """D_tau, or one everywhere in the arXiv text's form."""
        weights = cumulative_discount(dream.discount)
        return weights if self.config.dreamer.discount_weights else np.ones_like(weights)


@pytest.fixture(params=CASES)
def setup(request: pytest.FixtureRequest) -> Setup:
    return Setup(request.param)


def test_the_actor_loss_is_the_weighted_return(setup: Setup) -> None:
    dream = setup.imagine()
    expected = -(setup.weights(dream) * setup.returns(dream)).mean()
    actual = setup.losses()["actor"]
    assert actual.shape == ()
    np.testing.assert_allclose(actual.item(), expected, rtol=1e-10)


def test_the_value_loss_is_the_weighted_negative_log_density_of_the_return(setup: Setup) -> None:
    dream = setup.imagine()
    value = elu_mlp(setup.behavior.value, dream.feature)[:-1, :, 0]
    negative_log_density = 0.5 * (setup.returns(dream) - value) ** 2 + 0.5 * np.log(2 * np.pi)
    expected = (setup.weights(dream) * negative_log_density).mean()
    np.testing.assert_allclose(setup.losses()["value"].item(), expected, rtol=1e-10)


def test_both_losses_equal_the_reference_on_the_default_settings() -> None:
    setup = Setup("default")
    dream, losses = setup.imagine(), setup.losses()
    actor = reference.actor_loss(dream.reward, dream.value, dream.discount, 0.95)
    value = reference.value_loss(setup.returns(dream), dream.value, dream.discount)
    np.testing.assert_allclose(losses["actor"].item(), actor, rtol=1e-10)
    np.testing.assert_allclose(losses["value"].item(), value, rtol=1e-10)


def check_slopes(module: torch.nn.Module, gradients: tuple[torch.Tensor, ...], objective: Any, entries: int) -> None:
    """Central differences of `objective()` at random entries of each of the module's parameters."""
    random = np.random.default_rng(0)
    for (name, parameter), gradient in zip(module.named_parameters(), gradients, strict=True):
        values = parameter.data.view(-1)
        for index in random.integers(values.numel(), size=entries):
            centre = values[index].item()
            sides = []
            for side in (centre + STEP, centre - STEP):
                values[index] = side
                sides.append(objective())
            values[index] = centre
            slope = (sides[0] - sides[1]) / (2 * STEP)
            np.testing.assert_allclose(gradient.view(-1)[index].item(), slope, rtol=1e-5, atol=1e-8, err_msg=name)


def test_the_actors_gradient_runs_through_dynamics_reward_and_value_with_its_input_and_weights_fixed(
    setup: Setup,
) -> None:
    actor = setup.behavior.acting
    gradients = torch.autograd.grad(setup.losses()["actor"], list(actor.parameters()))
    base = setup.imagine()
    weights = setup.weights(base)
    check_slopes(actor, gradients, lambda: -(weights * setup.returns(setup.imagine(base.seen))).mean(), entries=4)


def test_the_values_gradient_takes_returns_and_features_as_given(setup: Setup) -> None:
    head = setup.behavior.value
    gradients = torch.autograd.grad(setup.losses()["value"], list(head.parameters()))
    base = setup.imagine()
    weights, returns = setup.weights(base), setup.returns(base)

    def objective() -> float:
        value = elu_mlp(head, base.feature)[:-1, :, 0]
        return float((weights * 0.5 * (returns - value) ** 2).mean())

    check_slopes(head, gradients, objective, entries=4)


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
