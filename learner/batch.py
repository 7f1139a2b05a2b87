"""Batches as tensors on the learner's device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from common.sequence import ROW_FIELDS, Rows


class Batch(NamedTuple):
    """B sequences of L rows, batch first, as `common.sequence.Rows` describes them."""

    image: Tensor  # uint8 (B, L, 64, 64, 3)
    action: Tensor  # (B, L, A)
    reward: Tensor  # (B, L)
    discount: Tensor  # (B, L)
    is_first: Tensor  # bool (B, L)

    @classmethod
    def from_rows(cls, rows: Rows, device: torch.device) -> Batch:
        """Sampled rows (B, L) on `device`: the CPU shares their memory, a GPU copies pinned memory without waiting."""
        return cls(*(torch.from_numpy(getattr(rows, name)).to(device, non_blocking=True) for name in ROW_FIELDS))

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `function` applied to each part."""
        return Batch(*(function(part) for part in self))
