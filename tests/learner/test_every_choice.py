"""A behaviour and an objective are separate choices: every pair learns."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from learner.batch import Batch
from learner.behaviors import BEHAVIORS
from learner.world_model.objectives import OBJECTIVES
from tests.learner.tiny import random_rows, tiny_config
from tests.learner.tiny_learner import assert_equal, make_learner, parameters


@pytest.mark.parametrize(("algorithm", "objective"), list(product(BEHAVIORS, OBJECTIVES)))
def test_every_behaviour_learns_with_every_objective(algorithm: str, objective: str) -> None:
    """IDM compares images, and does without that constraint where the objective draws none."""
    idm = {} if objective == "reconstruction" else {"rho": 0.0}
    learner = make_learner(tiny_config(algorithm=algorithm, objective=objective, idm=idm))
    before = {name: [p.clone() for p in one.parameters.values()] for name, one in learner.optimisers.items()}
    metrics = learner.update(2).metrics
    assert all(np.isfinite(value) for value in metrics.values())
    for name, optimiser in learner.optimisers.items():
        assert metrics[f"{name}_gradient_norm"] > 0.0
        pairs = zip(optimiser.parameters.values(), before[name], strict=True)
        assert any(not torch.equal(now, was) for now, was in pairs), name


@pytest.mark.parametrize("algorithm", BEHAVIORS)
def test_what_a_behaviour_adds_to_the_world_models_loss_is_idms_alone(algorithm: str) -> None:
    """Nothing that a behaviour trains moves the world model: with IDM's constraint off it is the same for all."""
    plain = make_learner(tiny_config(world_model={"free_nats": 1.0}))
    other = make_learner(tiny_config(algorithm=algorithm, world_model={"free_nats": 1.0}, idm={"rho": 0.0}))
    for learner in (plain, other):
        learner.update(1)
    ours, theirs = (
        {name: value for name, value in parameters(learner).items() if name.startswith("world_model.")}
        for learner in (other, plain)
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize("algorithm", ["dreamer", "idm"])
def test_a_doubled_batch_is_twice_as_many_sequences(algorithm: str) -> None:
    settings: dict[str, Any] = {"dreamer": {"doubled_batch": True}}
    single, double = tiny_config(algorithm=algorithm), tiny_config(algorithm=algorithm, **settings)
    assert double.sequences == 2 * single.sequences == 2 * single.training.batch_size
    learner = make_learner(double)
    one, two = (Batch.from_rows(random_rows(seed), learner.device) for seed in (0, 1))
    metrics = learner.learn(Batch(*(torch.cat(parts) for parts in zip(one, two, strict=True))))
    assert all(bool(value.isfinite()) for value in metrics.values())
