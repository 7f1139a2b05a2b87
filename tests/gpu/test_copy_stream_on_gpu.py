"""Batches that a GPU copies while it computes, beside batches that it copies in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

import pytest
import torch

from common.sequence import Rows
from learner.batch import Batch
from learner.capture import WARM_UPS, Captured, CudaGraphs, Outcome
from learner.copy_stream import CopyStream, Reached
from learner.feed import Feed, host_memory
from learner.learner import Learner
from tests.gpu.test_capture_on_gpu import no_waiting
from tests.learner.test_copy_stream import assert_same, in_two_memories
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_batches, tiny_config

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

LONG_CYCLES = 1_000_000_000  # half a second and more
SHORT_CYCLES = 20_000_000


class InBetween:
    """Copies on the stream that computes."""

    def start(self, copy: Callable[[], Batch]) -> Batch:
        return copy()

    def join(self, batch: Batch) -> Reached:
        return torch.cuda.current_stream().record_event().synchronize


def pinned(batches: list[Rows]) -> Iterator[Rows]:
    """The memory of each is overwritten two batches later, as early as is allowed."""
    return in_two_memories(batches, [host_memory((BATCH, LENGTH), ACTIONS, "cuda") for _ in range(2)])


def make_feed(count: int) -> tuple[Feed, list[Rows]]:
    batches = list(islice(random_batches(), count))
    return Feed(pinned(batches), torch.device("cuda")), batches


def test_a_batch_is_copied_while_the_gpu_computes() -> None:
    feed, _ = make_feed(2)
    assert isinstance(feed.copies, CopyStream)
    next(feed)
    torch.cuda._sleep(LONG_CYCLES)
    computed = torch.cuda.current_stream().record_event()
    next(feed)
    feed.copies.stream.synchronize()
    assert not computed.query(), "the copy is over, and what was asked for before it is not"


def test_batches_are_the_cpus_though_they_are_used_and_forgotten_while_the_gpu_is_behind() -> None:
    feed, batches = make_feed(40)
    found = []
    for _ in batches:
        batch = next(feed)
        torch.cuda._sleep(SHORT_CYCLES)
        found.append(batch.map(torch.clone))
        del batch
    for one, rows in zip(found, batches, strict=True):
        assert_same(one.map(torch.Tensor.cpu), rows)


def test_the_host_does_not_wait_for_the_gpu() -> None:
    feed, _ = make_feed(4)
    next(feed)
    next(feed)
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG_CYCLES)
    computed = torch.cuda.current_stream().record_event()
    with no_waiting():
        next(feed)
        next(feed)
    assert not computed.query()


def test_captured_updates_learn_from_the_same_batches_as_with_copies_in_between() -> None:
    count = WARM_UPS + 8
    config = replace(tiny_config(), compile="default")
    batches = list(islice(random_batches(), count))
    beside, between = (Learner(config, ACTIONS, pinned(batches), "cuda") for _ in range(2))
    between.feed = Feed(between.feed.batches, between.device, InBetween())
    for rows in batches:
        metrics = between.update(1).metrics
        assert beside.update(1).metrics == pytest.approx(metrics, rel=1e-2, abs=1e-2)
        assert beside.newest is not None
        assert_same(beside.newest.map(torch.Tensor.cpu), rows)
    assert beside.captured is not None
    assert beside.captured.recording is not None


def test_a_replay_reads_its_own_batch_though_the_next_ones_are_copied_beside_it() -> None:
    feed, batches = make_feed(WARM_UPS + 30)
    update = Captured(lambda batch, _: Outcome({"sum": batch.image.double().sum()}, None), CudaGraphs(feed.device))
    sums = []
    for _ in batches:
        batch = next(feed)
        torch.cuda._sleep(SHORT_CYCLES)
        sums.append(update(batch, {}).metrics["sum"])
        del batch
    assert update.recording is not None
    assert torch.stack(sums).tolist() == [rows.image.sum() for rows in batches]
