"""Planning: the cross-entropy method, random shooting, and the policy that acts by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from learner.behaviors import BEHAVIORS
from learner.behaviors.behavior import Foresight
from learner.behaviors.planet import Planner, cross_entropy_method
from learner.learner import Learner
from learner.policy import Policy
from learner.world_model import WorldModel
from learner.world_model.state import State
from tests.learner.reference import planet as reference
from tests.learner.reference.layers import array, elu_mlp
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.tiny import ACTIONS, random_batches, randomise, tiny_config

E, C, T, A = 3, 40, 4, 2
PLANNERS = ("planet", "random_shooting")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def search(goal: torch.Tensor, noise: torch.Tensor, top: int, **start: torch.Tensor) -> torch.Tensor:
    """Maximises −|a − goal|² for goals (E, T, A)."""
    iterations, environments, candidates, *size = noise.shape
    mean = start.get("mean", torch.zeros(environments, *size).double())
    std = start.get("std", torch.ones(environments, *size).double())

    def evaluate(actions: torch.Tensor) -> torch.Tensor:
        assert actions.shape == (environments, candidates, *size)
        assert actions.abs().max() <= 1.0
        return -(actions - goal[:, None]).square().sum((2, 3))

    return cross_entropy_method(evaluate, mean, std, candidates, top, iterations, noise)


@pytest.mark.parametrize(("iterations", "top"), [(1, 1), (1, 40), (2, 5), (5, 10), (10, 1)])
def test_each_refit_follows_the_equations(iterations: int, top: int) -> None:
    goal = 0.9 * torch.tanh(randn(E, T, A))
    mean, std = 0.3 * randn(E, T, A, seed=1), randn(E, T, A, seed=2).exp()
    noise = randn(iterations, E, C, T, A, seed=3)
    actual = search(goal, noise, top, mean=mean, std=std)
    expected = reference.cross_entropy_method(
        lambda _, e, sequence: -float(((sequence - array(goal[e])) ** 2).sum()),
        array(mean),
        array(std),
        top,
        array(noise),
    )
    assert actual.shape == (E, T, A)
    np.testing.assert_allclose(array(actual), expected, rtol=1e-9, atol=1e-12)


def test_no_argument_is_changed() -> None:
    mean, std, noise = torch.zeros(E, T, A).double(), torch.ones(E, T, A).double(), randn(2, E, C, T, A)
    before = noise.clone()
    search(torch.zeros(E, T, A), noise, 5, mean=mean, std=std)
    assert not mean.any()
    assert bool((std == 1.0).all())
    assert noise.equal(before)


def test_it_finds_the_optimum_of_a_quadratic() -> None:
    goal = 0.8 * torch.tanh(randn(E, T, A))
    found = search(goal, randn(10, E, 300, T, A, seed=1), top=30)
    np.testing.assert_allclose(array(found), array(goal), atol=0.05)


def test_an_optimum_outside_the_box_is_sought_at_its_edge() -> None:
    found = search(torch.full((E, T, A), 3.0).double(), randn(10, E, 300, T, A), top=30)
    assert found.max() <= 1.0
    np.testing.assert_allclose(array(found), 1.0, atol=0.02)


def test_refits_beat_as_many_candidates_drawn_at_once() -> None:
    goal = 0.8 * torch.tanh(randn(20, T, A))
    noise = randn(5, 20, C, T, A, seed=1)
    refitted = search(goal, noise, top=5)
    drawn = noise.transpose(0, 1).flatten(1, 2).clamp(-1.0, 1.0)  # (E, 5 · C, T, A)
    shot = -(drawn - goal[:, None]).square().sum((2, 3)).max(1).values
    assert -(refitted - goal).square().sum((1, 2)).mean() > shot.mean() + 0.1


def test_environments_do_not_hear_of_each_other() -> None:
    goal, noise = torch.tanh(randn(E, T, A)), randn(4, E, C, T, A, seed=1)
    together = search(goal, noise, top=5)
    for e in range(E):
        alone = search(goal[e : e + 1], noise[:, e : e + 1].contiguous(), top=5)
        np.testing.assert_allclose(array(together[e]), array(alone[0]), rtol=1e-12)


def test_a_search_without_spread_stays_finite() -> None:
    zero = torch.zeros(1, T, A)
    found = cross_entropy_method(
        lambda actions: torch.zeros(actions.shape[:2]), zero, zero, C, 5, 3, torch.randn(3, 1, C, T, A)
    )
    assert bool(found.isfinite().all())


class Planning:
    """A planner in float64 on a random world model, in posterior states of two environments."""

    def __init__(self, algorithm: str) -> None:
        torch.manual_seed(0)
        self.config = tiny_config(algorithm=algorithm)
        self.model = WorldModel(self.config, ACTIONS)
        randomise(self.model, size=0.3)
        self.model.double()
        acting = BEHAVIORS[algorithm].make_acting(self.config, self.model.rssm.feature_size, ACTIONS)
        assert isinstance(acting, Planner)
        self.acting = acting
        sizes = self.config.world_model
        widths = (sizes.deter, sizes.stoch, sizes.stoch, sizes.stoch)
        self.latent = State(*(randn(2, size, seed=i) for i, size in enumerate(widths)))
        self.noise = self.draw(2)

    def draw(self, environments: int) -> dict[str, torch.Tensor]:
        shapes = self.acting.noise_shapes(environments, training=True)
        return {name: randn(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}

    def act(self, latent: State, noise: dict[str, torch.Tensor]) -> np.ndarray:
        return array(self.acting.act(Foresight(self.model.rssm, self.model.reward), latent, noise, training=True))

    def worth(self, environment: int, sequence: np.ndarray, noise: np.ndarray) -> float:
        """The sum of predicted reward means along prior samples, noise (T, S)."""
        sizes = self.config.world_model
        rssm = ReferenceRSSM(self.model.rssm, sizes.stoch, sizes.deter, sizes.min_std)
        state = Belief(*(array(part[environment])[None] for part in self.latent))
        total = 0.0
        for action, draw in zip(sequence, noise, strict=True):
            state = rssm.prior(state, action[None], draw[None])
            total += float(elu_mlp(self.model.reward, state.feature)[0, 0])
        return total


def test_planet_acts_by_the_first_action_of_the_refitted_plan() -> None:
    planning = Planning("planet")
    candidates, prior = array(planning.noise["candidates"]), array(planning.noise["prior"])
    settings = planning.config.planet
    assert candidates.shape == (settings.iterations, 2, settings.candidates, settings.horizon, ACTIONS)
    spoken: dict[tuple[int, int], int] = {}

    def evaluate(iteration: int, environment: int, sequence: np.ndarray) -> float:
        number = spoken.get((iteration, environment), 0)  # candidates are asked for in order
        spoken[iteration, environment] = number + 1
        own = prior[iteration, :, environment * settings.candidates + number]
        return planning.worth(environment, sequence, own)

    start = np.zeros((2, settings.horizon, ACTIONS))
    expected = reference.cross_entropy_method(evaluate, start, np.ones_like(start), settings.top, candidates)
    np.testing.assert_allclose(planning.act(planning.latent, planning.noise), expected[:, 0], rtol=1e-9, atol=1e-12)


def test_random_shooting_acts_by_the_best_of_all_candidates_drawn_once() -> None:
    planning = Planning("random_shooting")
    settings = planning.config.planet
    (candidates,), (prior,) = array(planning.noise["candidates"]), array(planning.noise["prior"])
    count = settings.candidates * settings.iterations
    assert candidates.shape == (2, count, settings.horizon, ACTIONS)
    expected = []
    for e in range(2):
        sequences = np.clip(candidates[e], -1.0, 1.0)
        worths = [planning.worth(e, sequence, prior[:, e * count + c]) for c, sequence in enumerate(sequences)]
        expected.append(sequences[int(np.argmax(worths))][0])
    np.testing.assert_allclose(planning.act(planning.latent, planning.noise), expected, rtol=1e-12)


@pytest.mark.parametrize("algorithm", PLANNERS)
def test_environments_planned_for_together_act_as_each_would_alone(algorithm: str) -> None:
    planning = Planning(algorithm)
    together = planning.act(planning.latent, planning.noise)
    for e in range(2):
        mine = planning.noise["prior"].unflatten(2, (2, -1))[:, :, e]
        noise = {"candidates": planning.noise["candidates"][:, e : e + 1].contiguous(), "prior": mine.contiguous()}
        alone = planning.act(planning.latent.map(lambda part: part[e : e + 1]), noise)  # noqa: B023  # the lambda is called before e changes
        np.testing.assert_allclose(together[e], alone[0], rtol=1e-9)


def make_policy(algorithm: str, **settings: Any) -> Policy:
    config = tiny_config(algorithm=algorithm, **settings)
    policy = Policy(config, ACTIONS, seed=3)
    policy.load_weights(Learner(config, ACTIONS, random_batches()).weights())
    return policy


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("algorithm", PLANNERS)
def test_a_planning_policy_is_bounded_and_repeats_itself_for_a_seed(algorithm: str, training: bool) -> None:
    policy = make_policy(algorithm)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64, 3), dtype=np.uint8)

    def episode() -> np.ndarray:
        policy.reseed(7)
        state, actions = None, []
        for image in images:
            action, state = policy.act(image, state, training=training)
            actions.append(action)
        return np.stack(actions)

    first = episode()
    assert first.shape == (5, 3, ACTIONS)
    assert first.dtype == np.float32
    assert np.abs(first).max() <= 1.0
    np.testing.assert_array_equal(episode(), first)
    policy.reseed(8)
    assert not np.array_equal(policy.act(images[0], training=training)[0], first[0])


@pytest.mark.parametrize("algorithm", PLANNERS)
def test_a_planner_trains_the_world_model_alone(algorithm: str) -> None:
    learner = Learner(tiny_config(algorithm=algorithm), ACTIONS, random_batches())
    learner.update(1)
    assert set(learner.optimisers) == {"model"}
    assert not list(learner.behavior.parameters())
