"""Batches as tensors on the learner's device."""

from __future__ import annotations

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
        """Copies sampled rows (B, L) to `device`."""
        return cls(*(torch.tensor(getattr(rows, name), device=device) for name in ROW_FIELDS))
