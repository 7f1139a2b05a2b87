"""A checkpoint's networks for looking at: built from its configuration, without optimisers."""

from __future__ import annotations

from typing import NamedTuple

import safetensors.torch
from torch import nn

from common.checkpoint import Checkpoint
from common.config import Config
from common.errors import UserError
from learner.behaviors import BEHAVIORS, Behavior
from learner.learner import PARAMETERS
from learner.world_model import WorldModel


class Trained(NamedTuple):
    """What a learner has learnt, on the CPU, asking for no gradients."""

    world_model: WorldModel
    behavior: Behavior


def read_trained(config: Config, checkpoint: Checkpoint) -> Trained:
    """World model and behaviour with a checkpoint's parameters.

    Args:
        config: of the run that wrote the checkpoint.
        checkpoint: a whole one.

    Raises:
        UserError: the parameters do not fit the configuration.
    """
    action_size = int(checkpoint.state["action_size"])
    world_model = WorldModel(config, action_size)
    behavior = BEHAVIORS[config.algorithm](config, world_model.rssm.feature_size, action_size)
    modules = nn.ModuleDict({"world_model": world_model, "behavior": behavior})
    try:
        modules.load_state_dict(safetensors.torch.load(checkpoint.read(PARAMETERS)))
    except RuntimeError as error:
        raise UserError(f"{checkpoint.path} does not fit its run's configuration: {error}") from error
    modules.eval().requires_grad_(False)
    return Trained(world_model, behavior)
