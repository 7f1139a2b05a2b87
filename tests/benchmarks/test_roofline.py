"""What docs/performance.md counts by hand is what torch counts, and what it shows is what was counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from cluster.benchmarks.learner import noise_batches
from common.config import Config
from common.presets import paper, small
from learner.learner import Learner
from learner.plain import PlainLearner
from tests.benchmarks import roofline
from tests.benchmarks.roofline import ACTIONS, Work

NOTE = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.mark.parametrize(("preset", "batch", "length", "horizon"), [(small(), 10, 20, 10), (paper(), 2, 5, 8)])
def test_the_hand_count_is_torchs_within_a_few_percent(preset: Config, batch: int, length: int, horizon: int) -> None:
    training = replace(preset.training, batch_size=batch, batch_length=length)
    config = replace(preset, horizon=horizon, training=training)
    plain = PlainLearner(config, ACTIONS, noise_batches(config, ACTIONS))
    with FlopCounterMode(display=False) as counter:
        plain.update(1)
    by_hand = sum(roofline.update(config).values(), Work()).operations
    assert counter.get_total_flops() == pytest.approx(by_hand, rel=0.04)


def test_weights_are_counted_as_the_learner_has_them() -> None:
    for config in (small(), paper()):
        learner = Learner(config, ACTIONS, iter(()))
        there = sum(parameter.numel() for parameter in learner.modules.parameters() if parameter.ndim > 1)
        assert sum(roofline.update(config).values(), Work()).parameters == there


@pytest.mark.parametrize("preset", [paper(), small()], ids=lambda config: config.preset)
def test_the_note_shows_what_is_counted(preset: Config) -> None:
    note = NOTE.read_text()
    assert roofline.table(preset) in note
    assert roofline.floors(preset) in note
