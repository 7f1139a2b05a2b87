"""The numbers of a run, and those that outlive it being killed."""

from __future__ import annotations

import contextlib
import threading

from cluster.telemetry.cost import CpuCost
from cluster.telemetry.numbers import Numbers
from common.run_folder import RunFolder


class Telemetry:
    """What a run tells of itself.

    Attributes:
        numbers: as of now; the coordinator's thread alone reads and writes them.
        public: a copy for all threads that is replaced and never changed. Its counters were in the run folder before
            they were here: whoever has seen one does not see it go back, also when the run is killed and resumed.
        cost: the CPU time of telemetry in the coordinator's thread.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.numbers = Numbers()
        self.numbers.restore(folder.totals())
        self.public = self.numbers.copy()
        self.cost = CpuCost()
        self._serving = threading.Lock()
        self._serving_seconds = 0.0

    def served(self, cpu_seconds: float) -> None:
        """A thread of the server spent this much CPU time on a request."""
        with self._serving:
            self._serving_seconds += cpu_seconds

    def publish(self) -> None:
        """Makes the numbers of now public."""
        self.numbers.told("telemetry_cpu_seconds_total", self.cost.seconds, "coordinator")
        self.numbers.told("telemetry_cpu_seconds_total", self._serving_seconds, "server")
        with contextlib.suppress(OSError):  # a full disk: they are wanted all the more, and the run waits for room
            self.folder.write_totals(self.numbers.state())
        self.public = self.numbers.copy()
