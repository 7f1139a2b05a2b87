"""A configuration and data small enough for finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from common.config import Config
from common.presets import smoke
from common.sequence import IMAGE_SHAPE, Rows

ACTIONS = 2
BATCH, LENGTH = 2, 4


SECTIONS: dict[str, dict[str, Any]] = {
    "world_model": {
        "deter": 6,
        "stoch": 4,
        "hidden": 5,
        "depth": 1,
        "free_nats": 0.0,
        "reward_layers": 2,
        "reward_units": 7,
        "discount_layers": 1,
        "discount_units": 7,
        "contrastive_layers": 2,
        "contrastive_units": 7,
    },
    "dreamer": {"actor_layers": 2, "value_layers": 2, "units": 8},
    "no_value": {},
    "bird": {"entropy_samples": 5},
    "soft_bird": {"entropy_samples": 5},
    "idm": {"overshoot": 2, "evaluator_units": 6},
    "planet": {"horizon": 3, "candidates": 8, "iterations": 2, "top": 3},
}


def tiny_config(
    *, algorithm: str = "dreamer", objective: str = "reconstruction", horizon: int = 4, **settings: dict[str, Any]
) -> Config:
    """The smoke preset with every size shrunk, free nats off, and the given sections' settings on top."""
    config = smoke()
    sections = {
        name: replace(getattr(config, name), **(sizes | settings.pop(name, {}))) for name, sizes in SECTIONS.items()
    }
    assert not settings, f"no such section: {settings}"
    training = replace(config.training, batch_size=BATCH, batch_length=LENGTH)
    return replace(config, algorithm=algorithm, objective=objective, horizon=horizon, training=training, **sections)


def random_rows(seed: int) -> Rows:
    """A (B, L) batch: the first sequence begins an episode, the last one ends in a termination."""
    random = np.random.default_rng(seed)
    rows = Rows(
        image=random.integers(0, 256, (BATCH, LENGTH, *IMAGE_SHAPE), dtype=np.uint8),
        action=random.uniform(-1, 1, (BATCH, LENGTH, ACTIONS)).astype(np.float32),
        reward=random.uniform(0, 2, (BATCH, LENGTH)).astype(np.float32),
        discount=np.ones((BATCH, LENGTH), np.float32),
        is_first=np.zeros((BATCH, LENGTH), np.bool_),
    )
    rows.is_first[0, 0] = True
    rows.action[0, 0] = 0.0
    rows.discount[-1, -1] = 0.0
    return rows


def random_batches(seed: int = 0) -> Iterator[Rows]:
    """Endless batches; the same seed gives the same ones."""
    number = 0
    while True:
        yield random_rows(1000 * seed + number)
        number += 1


def randomise(module: nn.Module, size: float, seed: int = 0) -> None:
    """Moves every parameter, biases above all, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
