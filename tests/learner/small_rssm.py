"""An RSSM of a few units in float64, and comparisons with the reference."""

from __future__ import annotations

import numpy as np
import torch

from common.config import WorldModelConfig
from learner.world_model.rssm import RSSM, State
from tests.learner.reference.layers import array
from tests.learner.reference.rssm import Belief, ReferenceRSSM
from tests.learner.tiny import randomise

ACTION, EMBED, STOCH, DETER = 2, 7, 4, 6
CONFIG = WorldModelConfig(deter=DETER, stoch=STOCH, hidden=5)


def make_rssm() -> RSSM:
    """In float64, with biases that are not zero, so that a forgotten one shows."""
    torch.manual_seed(0)
    rssm = RSSM(CONFIG, ACTION, EMBED)
    randomise(rssm, size=0.3)
    return rssm.double()


def make_reference(rssm: RSSM) -> ReferenceRSSM:
    """The reference with the same parameters."""
    return ReferenceRSSM(rssm, STOCH, DETER, CONFIG.min_std)


def random_state(count: int, generator: torch.Generator) -> State:
    """A state (count, ...) that no step has led to."""

    def randn(size: int) -> torch.Tensor:
        return torch.randn(count, size, generator=generator, dtype=torch.float64)

    return State(randn(DETER), randn(STOCH), randn(STOCH).abs() + 0.1, randn(STOCH))


def belief(state: State) -> Belief:
    """The state as the reference's."""
    return Belief(*(array(getattr(state, name)) for name in ("deter", "mean", "std", "stoch")))


def assert_same(state: State, expected: Belief, fields: tuple[str, ...] = State._fields) -> None:
    """To eleven digits."""
    for name in fields:
        actual = array(getattr(state, name))
        np.testing.assert_allclose(actual, getattr(expected, name), rtol=1e-11, atol=1e-12, err_msg=name)
