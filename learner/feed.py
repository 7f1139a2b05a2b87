"""The way of a batch onto the learner's device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Rows
from learner.batch import Batch
from learner.copy_stream import Copies, CopyStream, Reached
from learner.device_rows import OnDevice

Batches = Iterator[Rows | OnDevice]


class Feed(Iterator[Batch]):
    """Puts each batch on the device without waiting for it, where its memory is pinned.

    The host only asks a GPU for an update and goes on: the next batch is taken, and copied, while that is computed. So
    none has to be drawn earlier than on a CPU.

    Args:
        batches: rows (B, L), or where on the device they are; the memory of one may be overwritten two batches later,
            and not before.
        device: the learner's.
        copies: who copies beside what is computed; None: a CUDA device's own stream for it, and on a CPU nobody, since
            batches are used where they are.

    Attributes:
        bytes: that were given to the device so far.
    """

    def __init__(self, batches: Batches, device: torch.device, copies: Copies | None = None) -> None:
        self.batches = batches
        self.device = device
        self.copies = CopyStream(device) if copies is None and device.type == "cuda" else copies
        self.bytes = 0
        self._reached: deque[Reached] = deque()

    def __next__(self) -> Batch:
        if len(self._reached) > 1:
            self._reached.popleft()()  # long ago, unless the device is two updates behind
        coming = next(self.batches)
        self.bytes += coming.nbytes
        if self.copies is None:
            return self._placed(coming)
        batch = self.copies.start(partial(self._placed, coming))
        self._reached.append(self.copies.join(batch))
        return batch

    def _placed(self, batch: Rows | OnDevice) -> Batch:
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
