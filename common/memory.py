"""How much memory this process holds."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes() -> int:
    """This process's own resident memory in bytes, without what it shares (page cache, libraries); 0 where untold."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return 0
    _, resident, shared, *_ = (int(pages) for pages in statm.read_text().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
