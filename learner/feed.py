"""The way of a batch onto the learner's device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import torch

from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Rows
from learner.batch import Batch


class Feed(Iterator[Batch]):
    """Puts each batch on the device without waiting for it, where its memory is pinned.

    Args:
        batches: rows (B, L); those of one may be overwritten two batches later, and not before.
        device: the learner's.
    """

    def __init__(self, batches: Iterator[Rows], device: torch.device) -> None:
        self.batches = batches
        self.device = device
        self._copying: deque[torch.cuda.Event] = deque()

    def __next__(self) -> Batch:
        if self.device.type != "cuda":
            return Batch.from_rows(next(self.batches), self.device)
        if len(self._copying) > 1:
            self._copying.popleft().synchronize()  # over long ago, unless the device is two updates behind
        batch = Batch.from_rows(next(self.batches), self.device)
        event = torch.cuda.Event()
        event.record()
        self._copying.append(event)
        return batch


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
