"""Batches that are copied to a GPU on a stream of their own, beside what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from learner.batch import Batch

Reached = Callable[[], None]
"""Waits until the device has come so far."""


class Copies(Protocol):
    """Who has batches copied to a device that computes meanwhile. All copies happen in order."""

    def start(self, copy: Callable[[], Batch]) -> Batch:
        """Starts a copy, whatever is being computed. Until `join` nothing may read the batch."""

    def join(self, batch: Batch) -> Reached:
        """What is computed from here on comes after the copy, and the batch's memory is its own until that is over.

        Returns:
            Waits until all is over that was to be computed before, and the copy.
        """


class CopyStream:
    """Implements `Copies` for a CUDA device; what computes is the stream that is current at `join`.

    Args:
        device: the learner's.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        # Memory that was taken before, for rows that stay, may come from work that is still under way.
        self.stream.wait_stream(torch.cuda.current_stream(device))

    def start(self, copy: Callable[[], Batch]) -> Batch:
        """See `Copies.start`."""
        with torch.cuda.stream(self.stream):
            return copy()

    def join(self, batch: Batch) -> Reached:
        """See `Copies.join`; streams wait for each other on the device, and the host for neither."""
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for part in batch:
            part.record_stream(computing)  # or the next copy could have its memory as soon as nobody names it
        return computing.record_event().synchronize
