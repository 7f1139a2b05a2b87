"""The recurrent state-space model, one step at a time, from the parameters of the module under test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.learner.reference.layers import dense, elu, gru, softplus


@dataclass(frozen=True)
class Belief:
    """One state: arrays of shape (..., D) and (..., S)."""

    deter: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    stoch: np.ndarray

    @property
    def feature(self) -> np.ndarray:
        """[stoch, deter]."""
        return np.concatenate([self.stoch, self.deter], axis=-1)

    @staticmethod
    def stack(beliefs: list[Belief]) -> Belief:
        """Joins steps along a new first axis."""
        return Belief(*(np.stack([getattr(b, f) for b in beliefs]) for f in ("deter", "mean", "std", "stoch")))


class ReferenceRSSM:
    """The step equations of the design's table, then plain loops over time."""

    def __init__(self, rssm: Any, stoch_size: int, deter_size: int, min_std: float) -> None:
        self.rssm = rssm
        self.stoch_size = stoch_size
        self.deter_size = deter_size
        self.min_std = min_std

    def zero(self, batch: int) -> Belief:
        """Where every window and every episode starts."""
        stoch = np.zeros((batch, self.stoch_size))
        return Belief(np.zeros((batch, self.deter_size)), stoch, stoch, stoch)

    def normal(self, output: np.ndarray, deter: np.ndarray, noise: np.ndarray) -> Belief:
        """(mean, std) from a dense layer's output; the sample is mean + std · noise."""
        mean, raw = np.split(output, 2, axis=-1)
        std = softplus(raw) + self.min_std
        return Belief(deter, mean, std, mean + std * noise)

    def prior(self, previous: Belief, action: np.ndarray, noise: np.ndarray) -> Belief:
        """[stoch, action] → dense ELU → GRU → dense ELU → dense → (mean, std)."""
        x = elu(dense(self.rssm.prior_input, np.concatenate([previous.stoch, action], axis=-1)))
        deter = gru(self.rssm.cell, x, previous.deter)
        hidden = elu(dense(self.rssm.prior_hidden, deter))
        return self.normal(dense(self.rssm.prior_output, hidden), deter, noise)

    def posterior(self, prior: Belief, embed: np.ndarray, noise: np.ndarray) -> Belief:
        """[deter, embed] → dense ELU → dense → (mean, std), with the prior's deter."""
        hidden = elu(dense(self.rssm.posterior_hidden, np.concatenate([prior.deter, embed], axis=-1)))
        return self.normal(dense(self.rssm.posterior_output, hidden), prior.deter, noise)

    def observe(
        self, embed: np.ndarray, action: np.ndarray, is_first: np.ndarray, noise: np.ndarray
    ) -> tuple[Belief, Belief]:
        """Filters (L, B, ...) from the zero state; a first row forgets what was before it, the action included."""
        length, batch = is_first.shape
        previous = self.zero(batch)
        priors, posteriors = [], []
        for t in range(length):
            keep = 1.0 - is_first[t].astype(np.float64)[:, None]
            kept = Belief(previous.deter * keep, previous.mean * keep, previous.std * keep, previous.stoch * keep)
            prior = self.prior(kept, action[t] * keep, noise[t])
            previous = self.posterior(prior, embed[t], noise[t])
            priors.append(prior)
            posteriors.append(previous)
        return Belief.stack(posteriors), Belief.stack(priors)

    def imagine(
        self, act: Callable[[int, np.ndarray], np.ndarray], start: Belief, noise: np.ndarray
    ) -> tuple[Belief, np.ndarray, list[np.ndarray]]:
        """H prior steps from `start`, which is no part of the trajectory.

        `act(tau, feature)` gives the action from the feature of the state before. Returns states (H, N, ...), actions
        (H, N, A) and the H features that the policy saw.
        """
        previous = start
        states, actions, seen = [], [], []
        for tau in range(len(noise)):
            seen.append(previous.feature)
            actions.append(act(tau, previous.feature))
            previous = self.prior(previous, actions[-1], noise[tau])
            states.append(previous)
        return Belief.stack(states), np.stack(actions), seen
