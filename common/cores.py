"""How many CPU cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> float:
    """CPU cores that this process may run on; a container's quota counts, and need not be whole."""
    usable = float(len(os.sched_getaffinity(0)))
    quota, _, period = _QUOTA.read_text().partition(" ") if _QUOTA.exists() else ("max", "", "")
    return usable if quota == "max" else min(usable, int(quota) / int(period))
