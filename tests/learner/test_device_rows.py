"""Batches gathered from rows on the device, here the CPU, are the rows that were put there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.sequence import ROW_FIELDS, Rows
from learner.batch import Batch
from learner.capture import WARM_UPS, Captured, Outcome, Work
from learner.device_rows import Delivery, DeviceRows, OnDevice, row_bytes
from learner.feed import Feed

CPU = torch.device("cpu")
ACTIONS = 3


def random_rows(count: int, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    scalars = random.standard_normal((2, count)).astype(np.float32)
    scalars[0, 0] = np.float32(-0.0)
    return Rows(
        image=random.integers(0, 256, (count, 64, 64, 3), np.uint8),
        action=random.standard_normal((count, ACTIONS)).astype(np.float32),
        reward=scalars[0],
        discount=scalars[1],
        is_first=random.random(count) < 0.3,
    )


def assert_rows(batch: Batch, rows: Rows, wanted: NDArray[np.int64]) -> None:
    """Bit for bit, as the ordinary batch of these rows would be."""
    whole = Batch.from_rows(Rows(*(getattr(rows, name)[wanted] for name in ROW_FIELDS)), CPU)
    for part, expected in zip(batch, whole, strict=True):
        assert (part.dtype, part.shape, part.is_contiguous()) == (expected.dtype, expected.shape, True)
        assert part.numpy().tobytes() == expected.numpy().tobytes()


def test_rows_come_back_from_where_they_were_put() -> None:
    rows, random = random_rows(30, 0), np.random.default_rng(1)
    table, places = DeviceRows(40, ACTIONS, CPU), random.permutation(40)[:30]
    wanted = random.integers(0, 30, (4, 5))
    assert_rows(table.batch([Delivery(rows, places, places[wanted])]), rows, wanted)
    later = random.integers(0, 30, (2, 5))
    assert_rows(table.batch([Delivery(rows[:0], places[:0], places[later])]), rows, later)


def test_parts_of_a_batch_follow_each_other_and_a_later_one_may_take_an_earlier_one_s_place() -> None:
    first, second = random_rows(6, 2), random_rows(6, 3)
    table, places = DeviceRows(6, ACTIONS, CPU), np.arange(6)
    wanted = np.array([[0, 1, 2]]), np.array([[3, 4, 5], [0, 1, 2]])
    batch = table.batch([Delivery(first, places, wanted[0]), Delivery(second, places, wanted[1])])
    both = Rows.concatenate([first, second])
    assert_rows(batch, both, np.concatenate([wanted[0], 6 + wanted[1]]))


def test_a_batch_stays_as_it_is_when_its_places_and_its_memory_are_used_again() -> None:
    memory, table, places = random_rows(6, 4), DeviceRows(6, ACTIONS, CPU), np.arange(6)
    wanted = np.array([[0, 1], [2, 3]])
    kept = Rows(*(getattr(memory, name).copy() for name in ROW_FIELDS))
    batch = table.batch([Delivery(memory, places, wanted)])
    for name in ROW_FIELDS:
        getattr(memory, name)[...] = getattr(random_rows(6, 5), name)
    other = table.batch([Delivery(memory, places, wanted)])
    assert_rows(batch, kept, wanted)
    assert_rows(other, memory, wanted)


class Again:
    """Records work as a recorder does that reads its inputs where they lay when it was recorded."""

    def warm_up(self, work: Work) -> Outcome:
        return work()

    def record(self, work: Work) -> Work:
        return work


def test_captured_updates_read_each_gathered_batch_though_the_next_is_gathered_before() -> None:
    count = WARM_UPS + 5
    sources = [random_rows(4, seed) for seed in range(count)]
    table, places = DeviceRows(4, ACTIONS, CPU), np.arange(4)

    def coming() -> Iterator[OnDevice]:
        for rows in sources:
            yield OnDevice(table, [Delivery(rows, places, places.reshape(2, 2))])

    feed = Feed(coming(), CPU)
    update = Captured(lambda batch, _: Outcome({"sum": batch.image.double().sum()}, None), Again())
    batch = next(feed)
    for number in range(count):
        following = next(feed) if number + 1 < count else batch
        assert update(batch, {}).metrics["sum"] == sources[number].image.sum()
        batch = following


def test_a_batch_tells_how_many_bytes_go_to_the_device_for_it() -> None:
    rows, table = random_rows(5, 6), DeviceRows(8, ACTIONS, CPU)
    places, wanted = np.arange(5), np.zeros((2, 3), np.int64)
    feed = Feed(iter([OnDevice(table, [Delivery(rows, places, wanted)]), rows]), CPU)
    next(feed)
    assert feed.bytes == 5 * row_bytes(ACTIONS) + 8 * (5 + 6)
    next(feed)
    assert feed.bytes == 10 * row_bytes(ACTIONS) + 8 * (5 + 6)


@pytest.mark.parametrize("action_size", [1, 6])
def test_a_row_takes_what_row_bytes_says(action_size: int) -> None:
    table = DeviceRows(7, action_size, CPU)
    assert sum(each.nbytes for each in table.tables) == 7 * row_bytes(action_size)
