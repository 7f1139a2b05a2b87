"""Batches are whole, and no memory is used too early, on a device that copies and computes as late as it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np
import torch

from common.errors import NoWindowsError
from common.sequence import ROW_FIELDS, Rows
from learner.batch import Batch
from learner.copy_stream import Reached
from learner.device_rows import Delivery, DeviceRows, OnDevice
from learner.feed import Feed
from tests.learner.test_device_rows import random_rows
from tests.learner.tiny import ACTIONS, BATCH, LENGTH, random_batches
from tests.learner.tiny_learner import make_learner

CPU = torch.device("cpu")
BATCHES = 12


class LateDevice:
    """Two queues, as a GPU's streams; what is in them happens once somebody waits for it.

    Args:
        leading: (B, L) of its batches.
        action_size: A.
    """

    def __init__(self, leading: tuple[int, int] = (BATCH, LENGTH), action_size: int = ACTIONS) -> None:
        self.shapes = Batch.from_rows(Rows.empty(leading, action_size), CPU)
        self.copying: list[Callable[[], object]] = []
        self.computing: list[Callable[[], object]] = []
        self.copied = self.computed = 0

    def start(self, copy: Callable[[], Batch]) -> Batch:
        place = self.shapes.map(torch.zeros_like)
        self.copying.append(lambda: [part.copy_(value) for part, value in zip(place, copy(), strict=True)])
        return place

    def join(self, batch: Batch) -> Reached:
        self.compute(partial(self._copy_until, len(self.copying)))
        return partial(self.compute_until, len(self.computing))

    def compute(self, work: Callable[[], object]) -> None:
        self.computing.append(work)

    def compute_until(self, count: int) -> None:
        while self.computed < count:
            self.computing[self.computed]()
            self.computed += 1

    def _copy_until(self, count: int) -> None:
        while self.copied < count:
            self.copying[self.copied]()
            self.copied += 1


def overwrite(memory: Rows, rows: Rows) -> None:
    for name in ROW_FIELDS:
        getattr(memory, name)[...] = getattr(rows, name)


def in_two_memories(batches: list[Rows], memories: list[Rows]) -> Iterator[Rows]:
    """The memory of each is overwritten two batches later, as early as is allowed."""
    for number, rows in enumerate(batches):
        overwrite(memories[number % 2], rows)
        yield memories[number % 2]


def two_memories(like: Rows) -> list[Rows]:
    return [Rows(*(getattr(like, name).copy() for name in ROW_FIELDS)) for _ in range(2)]


def found_by(device: LateDevice, feed: Feed, count: int) -> list[Batch]:
    """The batches as updates find them that are queued one after another, and happen later."""
    found: list[Batch] = []
    for number in range(count):
        batch = next(feed)
        behind = number - len(found)
        assert behind <= 2, "the host is never further ahead"
        device.compute(lambda batch=batch: found.append(batch.map(torch.clone)))
    device.compute_until(len(device.computing))
    return found


def assert_same(batch: Batch, rows: Rows) -> None:
    for part, name in zip(batch, ROW_FIELDS, strict=True):
        np.testing.assert_array_equal(part.numpy(), getattr(rows, name))


def test_each_update_finds_its_batch_whole_though_the_memory_is_used_again() -> None:
    batches, device = list(islice(random_batches(), BATCHES)), LateDevice()
    found = found_by(device, Feed(in_two_memories(batches, two_memories(batches[0])), CPU, device), BATCHES)
    for batch, rows in zip(found, batches, strict=True):
        assert_same(batch, rows)


def test_a_batch_that_could_not_be_drawn_at_first_changes_nothing() -> None:
    batches, device = list(islice(random_batches(), BATCHES)), LateDevice()
    source = in_two_memories(batches, two_memories(batches[0]))

    class Sometimes(Iterator[Rows]):
        asked = 0

        def __next__(self) -> Rows:
            self.asked += 1
            if self.asked % 3 == 0:
                raise NoWindowsError
            return next(source)

    class Patient(Feed):
        def __next__(self) -> Batch:
            try:
                return super().__next__()
            except NoWindowsError:
                return super().__next__()

    found = found_by(device, Patient(Sometimes(), CPU, device), BATCHES)
    for batch, rows in zip(found, batches, strict=True):
        assert_same(batch, rows)


def test_nothing_is_copied_before_it_must_nor_waited_for_by_the_host() -> None:
    device = LateDevice()
    feed = Feed(random_batches(), CPU, device)
    next(feed), next(feed)
    assert (device.copied, device.computed) == (0, 0)
    next(feed)
    assert device.copied == 1, "or its memory would be overwritten"


def test_a_learner_whose_batches_are_copied_beside_it_learns_the_same() -> None:
    """Here what computes is not late: a batch must be there as soon as it is joined."""

    class AtOnce(LateDevice):
        def join(self, batch: Batch) -> Reached:
            reached = super().join(batch)
            reached()
            return reached

    plain, beside = make_learner(), make_learner()
    beside.feed = Feed(beside.feed.batches, CPU, AtOnce())
    for count in (1, 3, 2):
        assert beside.update(count).metrics == plain.update(count).metrics
    assert beside.state() == plain.state()


def test_rows_that_stay_are_put_and_gathered_in_the_order_of_the_batches() -> None:
    """Each batch is of new rows, in the places and the memory of those before."""
    arriving = [random_rows(4, seed) for seed in range(BATCHES)]
    action_size = arriving[0].action.shape[-1]
    table, places = DeviceRows(4, action_size, CPU), np.arange(4)
    wanted = places.reshape(2, 2)
    device = LateDevice((2, 2), action_size)
    delivered = (
        OnDevice(table, [Delivery(rows, places, wanted)])
        for rows in in_two_memories(arriving, two_memories(arriving[0]))
    )
    for batch, rows in zip(found_by(device, Feed(delivered, CPU, device), BATCHES), arriving, strict=True):
        assert_same(batch, Rows(*(getattr(rows, name)[wanted] for name in ROW_FIELDS)))
