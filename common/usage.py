"""What a process uses: memory, CPU time, and how much of that goes into looking."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from common.memory import resident_bytes


class Usage(NamedTuple):
    """One look at the process that a role lives in.

    Attributes:
        resident_bytes: its own memory.
        cpu_seconds: CPU time of all its threads since the last look, whichever role of the process looked.
        telemetry_cpu_seconds: CPU time of the last look itself.
    """

    resident_bytes: int
    cpu_seconds: float
    telemetry_cpu_seconds: float


class _Meter:
    """Remembers where the last look ended, so that what is told adds up to the process's CPU time, in any thread."""

    def __init__(self) -> None:
        self.looking = threading.Lock()
        self.cpu_seconds = 0.0
        self.cost = 0.0

    def read(self) -> Usage:
        with self.looking:
            began = time.thread_time()
            cpu_seconds = time.process_time()
            usage = Usage(resident_bytes(), cpu_seconds - self.cpu_seconds, self.cost)
            self.cpu_seconds = cpu_seconds
            self.cost = time.thread_time() - began
            return usage


usage = _Meter().read
"""Looks at this process."""
