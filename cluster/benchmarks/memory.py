"""The most memory that tensors hold at once."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(action: Callable[[], object], device: str) -> int:
    """How far the memory of tensors rises above what is held before, in bytes, while `action` runs.

    Counted where tensors are allocated and freed, so that it is one action's alone, whatever else the process has held
    and given back before: the process's own peak would be that of the hungrier of two. What the convolution library
    holds for itself on a CPU is not in it.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        action()
    results = profiler.profiler.kineto_results if profiler.profiler is not None else None
    assert results is not None
    records = [event for event in results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(records, key=lambda event: event.start_ns())]
    return max(accumulate(changes, initial=0))
