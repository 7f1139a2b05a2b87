"""Rows that stay on the learner's device, and batches that are gathered there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Rows
from learner.batch import Batch

_IMAGE_BYTES = math.prod(IMAGE_SHAPE)
_SCALAR_BYTES = 4 + 4 + 1  # reward, discount, is_first


def row_bytes(action_size: int) -> int:
    """Bytes of a row with A action values on a device."""
    return _IMAGE_BYTES + 4 * action_size + _SCALAR_BYTES


class Delivery(NamedTuple):
    """Sequences of a batch, and the rows that must come to the device first.

    Attributes:
        new: rows (n,) in memory that the device copies from.
        places: int64 (n,), where each of them goes, no place twice.
        wanted: int64 (b, L), where the rows of the sequences lie then.
    """

    new: Rows
    places: NDArray[np.int64]
    wanted: NDArray[np.int64]


class DeviceRows:
    """So many rows of memory on the device, all taken at once; nothing is written on the CPU before it is used.

    Args:
        count: places for rows.
        action_size: A.
        device: whose memory it is.
    """

    def __init__(self, count: int, action_size: int, device: torch.device) -> None:
        self.device = device
        # Images as long numbers, since a GPU gathers byte for byte what is bytes.
        shapes = ((count, _IMAGE_BYTES // 8), (count, action_size), (count,), (count,), (count,))
        dtypes = (torch.int64, torch.float32, torch.float32, torch.float32, torch.bool)
        self.tables = [
            torch.empty(shape, dtype=dtype, device=device) for shape, dtype in zip(shapes, dtypes, strict=True)
        ]

    def batch(self, deliveries: Sequence[Delivery]) -> Batch:
        """A batch in memory of its own. What was delivered for one before may have been overwritten by then, and what
        is delivered first by what is delivered later: everything happens in order, on the stream that is current here.

        Args:
            deliveries: of one or more sequences each, together B.
        """
        count = sum(delivery.wanted.size for delivery in deliveries)
        gathered = [table.new_empty((count, *table.shape[1:])) for table in self.tables]
        begin = 0
        for new, places, wanted in deliveries:
            if len(new):
                self._put(new, places)
            numbers = self._moved(wanted.reshape(-1))
            for table, whole in zip(self.tables, gathered, strict=True):
                torch.index_select(table, 0, numbers, out=whole[begin : begin + len(numbers)])
            begin += len(numbers)
        length = deliveries[0].wanted.shape[1]
        images, *others = gathered
        return Batch(
            images.view(torch.uint8).view(-1, length, *IMAGE_SHAPE),
            *(values.view(-1, length, *values.shape[1:]) for values in others),
        )

    def _put(self, rows: Rows, places: NDArray[np.int64]) -> None:
        numbers = self._moved(places)
        image, *others = (self._moved(getattr(rows, name)) for name in ROW_FIELDS)
        for table, values in zip(self.tables, [image.view(len(rows), -1).view(torch.int64), *others], strict=True):
            table.index_copy_(0, numbers, values)

    def _moved(self, array: NDArray[np.generic]) -> Tensor:
        """On the device, without waiting where the array is pinned."""
        return torch.from_numpy(array).to(self.device, non_blocking=True)


class OnDevice(NamedTuple):
    """A batch that is yet to be gathered from rows on the device.

    Attributes:
        rows: where they are.
        deliveries: what it is made of.
    """

    rows: DeviceRows
    deliveries: list[Delivery]

    @property
    def nbytes(self) -> int:
        """Bytes that go to the device for it."""
        return sum(part.nbytes for delivery in self.deliveries for part in delivery)

    def batch(self) -> Batch:
        """Gathers it; batches are gathered in the order in which they were put together, and none is left out."""
        return self.rows.batch(self.deliveries)
