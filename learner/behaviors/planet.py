"""PlaNet: no policy is learnt; every action is planned in the world model (algorithms section 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.config import Config
from learner.batch import Batch
from learner.behaviors.behavior import Acting, Behavior, Foresight, ParameterGroup
from learner.world_model import WorldModel
from learner.world_model.state import State


def cross_entropy_method(
    evaluate: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    candidates: int,
    top: int,
    iterations: int,
    noise: Tensor,
) -> Tensor:
    """Fits a Gaussian over action sequences to the best of its own samples, again and again (PlaNet, algorithm 2).

    Args:
        evaluate: action sequences (E, C, T, A) → how good each is (E, C); called once an iteration.
        mean: (E, T, A), where the search begins.
        std: (E, T, A), how wide.
        candidates: C, sequences per iteration, clipped to ±1.
        top: best candidates that mean and std = sqrt(population variance + 1e-6) are refitted to.
        iterations: refits.
        noise: standard normal (iterations, E, C, T, A).

    Returns:
        The final mean (E, T, A).
    """
    environments, horizon, action_size = mean.shape
    for noise_i in noise.view(iterations, environments, candidates, horizon, action_size).unbind():
        actions = (mean[:, None] + std[:, None] * noise_i).clamp(-1.0, 1.0)  # (E, C, T, A)
        best = evaluate(actions).topk(top, dim=1).indices  # (E, top)
        elite = actions.gather(1, best[:, :, None, None].expand(-1, -1, horizon, action_size))  # (E, top, T, A)
        mean = elite.mean(1)
        std = (elite.var(1, correction=0) + 1e-6).sqrt()
    return mean


class Planner(Acting):
    """Plans the next actions of each environment from its posterior state, and takes the first."""

    def __init__(self, config: Config, action_size: int) -> None:
        super().__init__()
        self.settings = config.planet
        self.sizes = (config.world_model.stoch, action_size)

    def plan(self, value: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """The mean that the cross-entropy method ends at from N(0, 1): `value` is (E, C, T, A) → (E, C); (E, T, A)."""
        settings = self.settings
        start = noise.new_zeros(noise.shape[1], *noise.shape[3:])  # (E, T, A)
        return cross_entropy_method(
            value, start, torch.ones_like(start), settings.candidates, settings.top, settings.iterations, noise
        )

    def noise_shapes(self, environments: int, training: bool) -> dict[str, tuple[int, ...]]:
        """`candidates` (iterations, E, C, T, A), and `prior` (iterations, T, E · C, S) for the predicted states."""
        return self._shapes(self.settings.iterations, environments, self.settings.candidates)

    def act(self, model: Foresight, latent: State, noise: dict[str, Tensor], training: bool) -> Tensor:
        """The first action of each environment's plan; a sequence is worth the sum of its predicted mean rewards."""
        prior_noise = iter(noise["prior"])

        def value(actions: Tensor) -> Tensor:
            environments, candidates = actions.shape[:2]
            start = latent.map(lambda part: part.repeat_interleave(candidates, 0))  # (E · C, …)
            states = model.rssm.follow(start, actions.flatten(0, 1).transpose(0, 1), next(prior_noise))
            return model.reward(states.feature).sum(0).view(environments, candidates)

        return self.plan(value, noise["candidates"])[:, 0]

    def _shapes(self, iterations: int, environments: int, candidates: int) -> dict[str, tuple[int, ...]]:
        horizon, (stoch, action) = self.settings.horizon, self.sizes
        return {
            "candidates": (iterations, environments, candidates, horizon, action),
            "prior": (iterations, horizon, environments * candidates, stoch),
        }


class RandomPlanner(Planner):
    """As many candidates as all of the planner's iterations have, drawn once; the best one is the plan."""

    def plan(self, value: Callable[[Tensor], Tensor], noise: Tensor) -> Tensor:
        """The best of sequences from N(0, 1), clipped to ±1: `value` is (E, C, T, A) → (E, C); (E, T, A)."""
        (candidates,) = noise.clamp(-1.0, 1.0)  # (E, C, T, A)
        best = value(candidates).argmax(1)  # (E,)
        return candidates[torch.arange(len(best), device=best.device), best]

    def noise_shapes(self, environments: int, training: bool) -> dict[str, tuple[int, ...]]:
        """The planner's, with all of its iterations' candidates in one."""
        return self._shapes(1, environments, self.settings.candidates * self.settings.iterations)


class Planet(Behavior):
    """PlaNet (Hafner et al. 2019): trains no policy; plans every action by the
    cross-entropy method over imagined action sequences.
    """

    @staticmethod
    def make_acting(config: Config, feature_size: int, action_size: int) -> Acting:
        """The planner."""
        return Planner(config, action_size)

    def groups(self) -> dict[str, ParameterGroup]:
        """None: only the world model is trained."""
        return {}

    def noise_shapes(self, batch_size: int, length: int, starts: int) -> dict[str, tuple[int, ...]]:
        """None."""
        return {}

    def losses(
        self, world_model: WorldModel, batch: Batch, posterior: State, noise: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """None."""
        return {}, {}


class RandomShooting(Planet):
    """Model-predictive control by random shooting (Nagabandi et al. 2018): no refits as in
    PlaNet's planner; as many action sequences are drawn once and the best is taken.
    """

    @staticmethod
    def make_acting(config: Config, feature_size: int, action_size: int) -> Acting:
        """The planner that draws once."""
        return RandomPlanner(config, action_size)
