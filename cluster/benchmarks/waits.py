"""How often the host waits for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

_SAID = "called a synchronizing CUDA operation"


def waits(action: Callable[[], object], device: str) -> int | None:
    """How often the host waits for the GPU while `action` runs, as PyTorch counts it; None where there is no GPU."""
    if not device.startswith("cuda"):
        return None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            action()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum(_SAID in str(warning.message) for warning in said)
