"""How busy and how full the learner's GPU is."""

from __future__ import annotations

import torch

from common.reports import GpuUse


def gpu_use(device: torch.device) -> GpuUse | None:
    """The GPU's memory, other processes' included, and how busy it is; None for another kind of device."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return GpuUse(_busy(device), total - free, total)


def _busy(device: torch.device) -> float | None:
    """Asks NVIDIA's management library, through its Python binding where that is installed."""
    try:
        return torch.cuda.utilization(device) / 100
    except Exception:  # no binding, or one of NVML's own errors: looking must not end a run
        return None
