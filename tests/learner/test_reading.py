"""A checkpoint's networks, for looking at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.checkpoint import Checkpoint, open_checkpoint, write
from common.errors import UserError
from learner.behaviors import BEHAVIORS
from learner.reading import read_trained
from tests.learner.tiny import ACTIONS, tiny_config
from tests.learner.tiny_learner import make_learner, parameters


def checkpoint_of(learner, path: Path) -> Checkpoint:
    write(path / "7", 7, learner.state(), {"action_size": ACTIONS})
    return open_checkpoint(path / "7")


@pytest.mark.parametrize("algorithm", BEHAVIORS)
def test_what_is_read_is_what_the_learner_had(algorithm: str, tmp_path: Path) -> None:
    learner = make_learner(replace(tiny_config(), algorithm=algorithm, horizon=3))
    trained = read_trained(learner.config, checkpoint_of(learner, tmp_path))
    found = {
        **{f"world_model.{name}": value for name, value in trained.world_model.state_dict().items()},
        **{f"behavior.{name}": value for name, value in trained.behavior.state_dict().items()},
    }
    for name, value in parameters(learner).items():
        assert torch.equal(found[name], value), name
    assert not any(parameter.requires_grad for module in trained for parameter in module.parameters())


def test_parameters_of_another_size_are_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(make_learner(), tmp_path)
    with pytest.raises(UserError, match="does not fit its run's configuration"):
        read_trained(tiny_config(world_model={"deter": 9}), checkpoint)
