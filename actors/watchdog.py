"""Ends a process whose environment hangs in C, where no exception can reach it; the supervisor starts a new one."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from types import TracebackType

STDERR = 2


class HangWatchdog:
    """Ends this process with status 1 when a step, a render or a build takes longer than `seconds`.

    >>> watchdog = HangWatchdog(60.0)
    >>> with watchdog:                      # only the inside is watched
    ...     for environment in environments:
    ...         environment.step(action)
    ...         watchdog.alive()            # the time starts anew

    A thread looks about once a second and says in one line what happened. A hang that keeps the interpreter lock stops
    that thread as well, so it re-arms `faulthandler`, which needs no lock and ends the process with every thread's
    traceback.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._interval = min(1.0, seconds / 4)
        self._busy_since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hang watchdog", daemon=True)
        self._thread.start()

    def __enter__(self) -> HangWatchdog:
        self.alive()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._busy_since = None

    def alive(self) -> None:
        """Starts the time anew."""
        self._busy_since = time.monotonic()

    def close(self) -> None:
        """Stops watching for good."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.is_set():
            faulthandler.dump_traceback_later(self.seconds + self._interval, exit=True, file=STDERR)
            self._closed.wait(self._interval)
            busy_since = self._busy_since
            if busy_since is not None and time.monotonic() - busy_since > self.seconds:
                self._end_process()
        faulthandler.cancel_dump_traceback_later()

    def _end_process(self) -> None:
        line = f"an environment hung for more than {self.seconds:g} s; this process ends, to be started anew\n"
        os.write(STDERR, line.encode())
        faulthandler.dump_traceback(file=STDERR)
        os._exit(1)
