"""In which number format products and convolutions are computed; everything else stays in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from common.config import Precision


def computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within, networks compute so.

    Parameters, their gradients and the optimisers' state are float32 in any case, and so are states, log-densities, KL,
    returns and weights: what networks put out is brought back to it at once.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def compute_type(like: Tensor) -> torch.dtype:
    """What products are computed in: autocast's type where that is on, or the type of the states."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype
