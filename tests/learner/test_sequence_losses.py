"""What each sequence lost, and its way back to who draws the batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.config import Config, ReplayConfig
from common.sequence import Rows
from learner.batch import Batch
from learner.distributions import LOG_2PI
from learner.learner import Learner
from tests.learner.model_terms import make_model
from tests.learner.test_host_sync import NoHostSync
from tests.learner.tiny import ACTIONS, BATCH, random_batches, tiny_config
from tests.learner.tiny_learner import assert_equal, parameters

PIXELS = 64 * 64 * 3
CPU = torch.device("cpu")


@pytest.mark.parametrize("settings", [{}, {"kl_scale": 0.5}, {"discount_head": True}], ids=str)
def test_a_sequence_loses_what_a_batch_of_it_alone_loses_but_for_constants(settings: dict[str, Any]) -> None:
    model, batch, noise = make_model(free_nats=0.0, **settings)
    model.by_sequence = True
    by_sequence = model.loss(batch, noise).by_sequence
    assert by_sequence is not None
    assert by_sequence.shape == (BATCH,)
    assert not by_sequence.requires_grad
    for number in range(BATCH):
        one = slice(number, number + 1)
        alone = model.loss(batch.map(lambda part, one=one: part[one]), noise[:, one]).loss.item()
        expected = alone - 0.5 * (PIXELS + 1) * LOG_2PI
        np.testing.assert_allclose(by_sequence[number].item(), expected, rtol=1e-6)


@pytest.mark.parametrize("nce_sum", ["observations", "states"])
@pytest.mark.parametrize("objective", ["contrastive", "reward_only"])
def test_without_images_the_sequences_lose_the_models_loss_in_the_mean(objective: str, nce_sum: str) -> None:
    model, batch, noise = make_model(objective, free_nats=0.0, nce_sum=nce_sum)
    model.by_sequence = True
    lost = model.loss(batch, noise)
    assert lost.by_sequence is not None
    np.testing.assert_allclose(lost.by_sequence.mean().item(), lost.loss.item() - 0.5 * LOG_2PI, rtol=1e-6)
    assert lost.by_sequence.min() >= 0


def test_free_nats_do_not_hide_which_sequence_surprised() -> None:
    plain, batch, noise = make_model(free_nats=0.0)
    free, _, _ = make_model(free_nats=1000.0)
    plain.by_sequence = free.by_sequence = True
    torch.testing.assert_close(plain.loss(batch, noise).by_sequence, free.loss(batch, noise).by_sequence)


class Source(Iterator[Rows]):
    """Batches that are numbered, and what was told of them."""

    def __init__(self, batches: Iterator[Rows] | None = None) -> None:
        self.batches = batches or random_batches()
        self.origin = 0
        self.told: list[tuple[int, NDArray[np.float32]]] = []

    def __next__(self) -> Rows:
        self.origin += 1
        return next(self.batches)

    def prioritise(self, origin: int, losses: NDArray[np.float32]) -> None:
        self.told.append((origin, losses))


def prioritized(**settings: Any) -> Config:
    return replace(tiny_config(**settings), replay=ReplayConfig(sampling="prioritized"))


def test_each_batch_has_its_losses_told_one_update_later() -> None:
    source = Source()
    learner, twin = (Learner(prioritized(), ACTIONS, batches) for batches in (source, random_batches()))
    expected = []
    for number in range(4):
        batch = Batch.from_rows(next(source), CPU)
        expected.append(twin.losses(batch, twin.draw_noise(*batch.reward.shape)).by_sequence)
        twin.generator.set_state(learner.generator.get_state())
        twin.learn(batch)
        learner.learn(batch)
        assert [origin for origin, _ in source.told] == list(range(1, number + 1))
    for (_, losses), wanted in zip(source.told, expected[:3], strict=True):
        assert wanted is not None
        np.testing.assert_array_equal(losses, wanted)


def test_a_call_ends_with_everything_told() -> None:
    source = Source()
    learner = Learner(prioritized(), ACTIONS, source)
    learner.update(3)
    assert [origin for origin, _ in source.told] == [1, 2, 3]
    assert all(losses.shape == (BATCH,) and losses.dtype == np.float32 for _, losses in source.told)
    learner.update(1)
    assert [origin for origin, _ in source.told] == [1, 2, 3, 4]


def test_uniformly_drawn_batches_are_told_nothing() -> None:
    source = Source()
    Learner(tiny_config(), ACTIONS, source).update(2)
    assert source.told == []


def test_telling_changes_nothing_that_is_learnt() -> None:
    told, untold = Learner(prioritized(), ACTIONS, Source()), Learner(tiny_config(), ACTIONS, random_batches())
    told.update(3)
    untold.update(3)
    assert_equal(parameters(told), parameters(untold))


@pytest.mark.parametrize("objective", ["reconstruction", "contrastive", "reward_only"])
def test_nothing_waits_for_the_device_while_losses_leave_it(objective: str) -> None:
    source = Source()
    learner = Learner(prioritized(objective=objective, world_model={"discount_head": True}), ACTIONS, source)
    batches = [Batch.from_rows(next(source), CPU) for _ in range(3)]
    with NoHostSync():
        for batch in batches:
            learner.learn(batch)
    assert len(source.told) == 2


def test_of_a_run_that_diverged_nothing_more_is_told() -> None:
    source = Source()
    learner = Learner(prioritized(), ACTIONS, source)
    with torch.no_grad():
        next(learner.world_model.parameters()).fill_(float("nan"))
    with pytest.raises(FloatingPointError):
        learner.update(1)
    assert source.told == []
