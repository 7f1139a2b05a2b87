"""The way of a batch onto the learner's device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Rows
from learner.batch import Batch
from learner.device_rows import OnDevice

Batches = Iterator[Rows | OnDevice]


class Feed(Iterator[Batch]):
    """Puts each batch on the device without waiting for it, where its memory is pinned.

    Args:
        batches: rows (B, L), or where on the device they are; the memory of one may be overwritten two batches later,
            and not before.
        device: the learner's.

    Attributes:
        bytes: that were given to the device so far.
    """

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self.batches = batches
        self.device = device
        self.bytes = 0
        self._copying: deque[torch.cuda.Event] = deque()

    def __next__(self) -> Batch:
        if self.device.type != "cuda":
            return self._placed(next(self.batches))
        if len(self._copying) > 1:
            self._copying.popleft().synchronize()  # over long ago, unless the device is two updates behind
        batch = self._placed(next(self.batches))
        event = torch.cuda.Event()
        event.record()
        self._copying.append(event)
        return batch

    def _placed(self, batch: Rows | OnDevice) -> Batch:
        self.bytes += batch.nbytes
        return batch.batch() if isinstance(batch, OnDevice) else Batch.from_rows(batch, self.device)


def host_memory(leading: tuple[int, ...], action_size: int, device: str) -> Rows:
    """Memory for rows of this leading shape; pinned, if it is for a GPU.

    Args:
        leading: (B, L).
        action_size: A.
        device: what copies from it.
    """
    if not device.startswith("cuda"):
        return Rows.empty(leading, action_size)
    shapes = ((*leading, *IMAGE_SHAPE), (*leading, action_size), leading, leading, leading)
    dtypes = (torch.uint8, torch.float32, torch.float32, torch.float32, torch.bool)
    assert len(shapes) == len(ROW_FIELDS)
    return Rows(
        *(torch.empty(shape, dtype=dtype, pin_memory=True).numpy() for shape, dtype in zip(shapes, dtypes, strict=True))
    )


def host_numbers(shape: tuple[int, ...], device: str) -> NDArray[np.int64]:
    """Memory for whole numbers, int64 of this shape; pinned, if it is for a GPU."""
    return torch.empty(shape, dtype=torch.int64, pin_memory=device.startswith("cuda")).numpy()
