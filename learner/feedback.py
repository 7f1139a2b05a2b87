"""The way back of what was lost on each sequence, to who draws the batches."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@runtime_checkable
class Prioritised(Protocol):
    """Batches that are drawn by what was lost on those before."""

    @property
    def origin(self) -> Any:
        """Says, of the batch that was taken last, where its sequences came from."""

    def prioritise(self, origin: Any, losses: NDArray[np.float32]) -> None:
        """What was lost on each sequence (B,) of the batch of that origin, in nats."""


class _Copy(NamedTuple):
    origin: Any
    losses: Tensor
    made: torch.cuda.Event | None


class Feedback:
    """Hands losses back one update later, when their copy has long left the device and nothing waits for it.

    Args:
        batches: what the losses go back to.
    """

    def __init__(self, batches: Prioritised) -> None:
        self.batches = batches
        self._copy: _Copy | None = None

    def put(self, losses: Tensor) -> None:
        """Takes the losses (B,) of the batch that was taken last, and hands back those of the one before."""
        self.flush()
        made = torch.cuda.Event() if losses.is_cuda else None
        copy = losses.detach().to("cpu", non_blocking=True)  # pinned, where it comes from a GPU
        if made is not None:
            made.record()
        self._copy = _Copy(self.batches.origin, copy, made)

    def flush(self) -> None:
        """Hands back what was put last."""
        if self._copy is None:
            return
        origin, losses, made = self._copy
        self._copy = None
        if made is not None:
            made.synchronize()
        self.batches.prioritise(origin, losses.float().numpy())
