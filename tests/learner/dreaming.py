"""A behaviour in float64 beside its imagination in numpy, and slopes of what numpy computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from learner.batch import Batch
from learner.behaviors import BEHAVIORS
from learner.world_model import WorldModel
from learner.world_model.state import State
from tests.learner.reference.layers import array, elu_mlp, sigmoid, softplus
from tests.learner.reference.returns import cumulative_discount, lambda_return
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_rows, randomise, tiny_config

STEP = 1e-5


class Imagined(NamedTuple):
    """What the reference dreamt: the features that the policy saw, and (H, N, ...) of what followed."""

    seen: list[np.ndarray]
    states: Belief
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray

    @property
    def feature(self) -> np.ndarray:
        return self.states.feature


class Setup:
    """World model and behaviour in float64 with random parameters, posterior states (L, B, ...), and fixed noise."""

    def __init__(self, algorithm: str = "dreamer", horizon: int = 4, **settings: dict[str, Any]) -> None:
        torch.manual_seed(0)
        self.config = tiny_config(algorithm=algorithm, horizon=horizon, **settings)
        self.world_model = WorldModel(self.config, ACTIONS)
        self.behavior: Any = BEHAVIORS[algorithm](self.config, self.world_model.rssm.feature_size, ACTIONS)
        randomise(self.world_model, size=0.3, seed=1)
        randomise(self.behavior, size=0.3, seed=2)
        self.world_model.double()
        self.behavior.double()
        generator = torch.Generator().manual_seed(3)

        def randn(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        sizes = self.config.world_model
        deter, mean, std, stoch = (randn(LENGTH, BATCH, n) for n in (sizes.deter, *[sizes.stoch] * 3))
        self.posterior = State(*(part.requires_grad_() for part in (deter, mean, std.abs() + 0.1, stoch)))
        rows = Batch.from_rows(random_rows(4), torch.device("cpu"))
        self.batch = rows._replace(action=rows.action.double(), reward=rows.reward.double())
        starts = self.world_model.start_count(BATCH, LENGTH)
        self.noise = {name: randn(*shape) for name, shape in self.behavior.noise_shapes(BATCH, LENGTH, starts).items()}
        self.rssm = ReferenceRSSM(self.world_model.rssm, sizes.stoch, sizes.deter, sizes.min_std)

    def losses(self) -> dict[str, torch.Tensor]:
        return self.behavior.losses(self.world_model, self.batch, self.posterior, self.noise)[0]

    def policy(self, feature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The table's mean and std before the tanh, or the arXiv text's."""
        mean, raw = np.split(elu_mlp(self.behavior.acting, feature), 2, axis=-1)
        settings = self.config.dreamer
        if settings.mean_scale:
            mean = settings.mean_scale * np.tanh(mean / settings.mean_scale)
        shift = np.log(np.exp(settings.init_std) - 1.0) if settings.init_std else 0.0
        return mean, softplus(raw + shift) + settings.min_std

    def act(self, feature: np.ndarray, noise: np.ndarray) -> np.ndarray:
        mean, std = self.policy(feature)
        return np.tanh(mean + std * noise)

    def real(self) -> Belief:
        """The posterior states (L, B, ...)."""
        return Belief(*(array(part) for part in self.posterior))

    def start(self) -> Belief:
        """Every posterior state (N, ...), but for the last rows where a discount head is to be trusted."""
        rows = LENGTH - (self.world_model.discount_head is not None)
        real = (array(part)[:rows] for part in self.posterior)
        return Belief(*(part.reshape(-1, part.shape[-1]) for part in real))

    def imagine(self, seen: list[np.ndarray] | None = None, start: Belief | None = None) -> Imagined:
        """H steps from every start; with `seen`, the policy looks at these features instead of where it is."""
        action_noise = array(self.noise["action"])
        states, action, saw = self.rssm.imagine(
            lambda tau, feature: self.act(feature if seen is None else seen[tau], action_noise[tau]),
            start or self.start(),
            array(self.noise["prior"]),
        )
        feature = states.feature
        discount = np.full(feature.shape[:2], 0.99)
        if self.world_model.discount_head is not None:
            discount = sigmoid(elu_mlp(self.world_model.discount_head, feature)[..., 0])
        return Imagined(saw, states, action, elu_mlp(self.world_model.reward, feature)[..., 0], discount)

    def returns(self, dream: Imagined, reward: np.ndarray | None = None) -> np.ndarray:
        """λ-returns with the value head, or its target; of `reward` where that is not the dream's own."""
        head = self.behavior.value_target or self.behavior.value
        value = elu_mlp(head, dream.feature)[..., 0]
        return lambda_return(dream.reward if reward is None else reward, value, dream.discount, 0.95)

    def weights(self, dream: Imagined) -> np.ndarray:
        """D_tau, or one everywhere in the arXiv text's form."""
        weights = cumulative_discount(dream.discount)
        return weights if self.config.dreamer.discount_weights else np.ones_like(weights)

    def squared_error(self, dream: Imagined, returns: np.ndarray) -> np.ndarray:
        """−ln N(R_tau; v_tau, 1), the value head's own."""
        value = elu_mlp(self.behavior.value, dream.feature)[:-1, :, 0]
        return 0.5 * (returns - value) ** 2 + 0.5 * np.log(2 * np.pi)

    def gradients(self, loss: str, module: torch.nn.Module) -> tuple[torch.Tensor, ...]:
        """Of one of the behaviour's losses."""
        return torch.autograd.grad(self.losses()[loss], list(module.parameters()))


def check_slopes(
    module: torch.nn.Module,
    gradients: tuple[torch.Tensor, ...],
    objective: Callable[[], float],
    entries: int,
    step: float = STEP,
) -> None:
    """Central differences of `objective()` at random entries of each of the module's parameters."""
    random = np.random.default_rng(0)
    for (name, parameter), gradient in zip(module.named_parameters(), gradients, strict=True):
        values = parameter.data.view(-1)
        for index in random.integers(values.numel(), size=entries):
            centre = values[index].item()
            sides = []
            for side in (centre + step, centre - step):
                values[index] = side
                sides.append(objective())
            values[index] = centre
            slope = (sides[0] - sides[1]) / (2 * step)
            np.testing.assert_allclose(gradient.reshape(-1)[index].item(), slope, rtol=1e-5, atol=1e-8, err_msg=name)


def reached(loss: torch.Tensor, module: torch.nn.Module) -> set[str]:
    """Names of the module's parameters that a gradient reaches."""
    named = dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True, retain_graph=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None and gradient.any()}
