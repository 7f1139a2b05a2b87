"""Learners on tiny data, and bitwise comparison of what they learnt."""

from __future__ import annotations

import torch

from common.config import Config
from learner.behaviors import BEHAVIORS
from learner.learner import Learner
from learner.world_model.objectives import OBJECTIVES
from tests.learner.tiny import ACTIONS, random_batches, tiny_config

# The behaviours with all that is their own switched on, and each objective.
EVERY_CHOICE: dict[str, Config] = {
    **{name: tiny_config(algorithm=name, bird={"entropy_weight": 0.1}) for name in BEHAVIORS},
    **{objective: tiny_config(objective=objective) for objective in OBJECTIVES},
}


def make_learner(config: Config | None = None, data_seed: int = 0) -> Learner:
    """With an endless supply of batches."""
    return Learner(config or tiny_config(), ACTIONS, random_batches(data_seed))


def parameters(learner: Learner) -> dict[str, torch.Tensor]:
    """A copy of every parameter by name."""
    return {name: tensor.clone() for name, tensor in learner.modules.state_dict().items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], prefix: str = "") -> None:
    """The same bits, for every name that starts so."""
    assert a.keys() == b.keys()
    for name in a:
        if name.startswith(prefix):
            assert torch.equal(a[name], b[name]), name
