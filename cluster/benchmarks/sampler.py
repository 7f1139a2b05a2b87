"""Looks at a process and all that it has started, every few seconds: does any of them grow?"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import PurePath
from types import TracebackType
from typing import NamedTuple

import psutil


class Look(NamedTuple):
    """One look.

    Attributes:
        seconds: since the sampler was entered.
        memory: each process's own bytes, by pid: without the pages it shares, which the kernel may take away.
        figures: what else was asked for, by name.
    """

    seconds: float
    memory: dict[int, int]
    figures: dict[str, float]


class Growth(NamedTuple):
    """What a series of bytes did once it had settled.

    Attributes:
        early: its median in the second quarter of the time.
        late: its median in the last quarter.
        per_hour: the slope of the straight line through the last half.
    """

    early: float
    late: float
    per_hour: float


class Sampler:
    """Looks from a thread while it is entered.

    Args:
        root: the pid of the process whose descendants are looked at, itself included; this process if None.
        every: seconds between two looks.
        figures: what else to note with each look; called in the sampler's thread.

    Attributes:
        looks: what was seen so far.
        cpu_seconds: what looking has cost this process.
    """

    def __init__(
        self, root: int | None = None, every: float = 5.0, figures: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        self.looks: list[Look] = []
        self.cpu_seconds = 0.0
        self._root = psutil.Process(root)
        self._every = every
        self._figures = figures
        self._names: dict[int, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def series(self, since: float = 0.0) -> dict[str, list[tuple[float, int]]]:
        """Seconds and own bytes of each process that there was in the end, named by what it is: `Replay 0`.

        Args:
            since: seconds after the beginning from which on looks count.
        """
        counted = Counter[str]()
        found: dict[str, list[tuple[float, int]]] = {}
        for pid, kind in self._names.items():
            name = f"{kind} {counted[kind]}"
            counted[kind] += 1
            seen = [(look.seconds, look.memory[pid]) for look in self.looks if pid in look.memory]
            if seen[-1][0] == self.looks[-1].seconds:
                found[name] = [(seconds, held) for seconds, held in seen if seconds >= since]
        return found

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self._look()
            self.cpu_seconds = time.thread_time()

    def _look(self) -> None:
        seconds = time.monotonic() - self._began
        memory = {}
        for process in _family(self._root):
            try:
                with process.oneshot():
                    held = process.memory_info()
                    name = _kind(process.cmdline())
            except psutil.Error:  # it has ended
                continue
            if name != "IDLE" or process.pid not in self._names:  # a worker of Ray's that is not anybody yet
                self._names[process.pid] = name
            memory[process.pid] = held.rss - held.shared
        self.looks.append(Look(seconds, memory, dict(self._figures())))


def growth(series: list[tuple[float, int]]) -> Growth:
    """What became of one process's memory; the time until it has settled, a quarter of all, does not count."""
    values = [float(held) for _, held in series]
    quarter = max(1, len(values) // 4)
    half = series[len(series) // 2 :]
    slope = statistics.linear_regression(*zip(*half, strict=True)).slope if len(half) > 1 else 0.0
    early = statistics.median(values[quarter : 2 * quarter] or values)
    return Growth(early, statistics.median(values[-quarter:]), 3600 * slope)


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _kind(command: list[str]) -> str:
    """What a process is: `Replay` for Ray's `ray::Replay.call`, else its program or script."""
    first = command[0] if command else "?"
    if first.startswith("ray::"):
        return first.removeprefix("ray::").partition(".")[0].partition("(")[0].strip()
    if PurePath(first).name.startswith("python"):
        script = next((part for part in command[1:] if not part.startswith("-")), first)
        return PurePath(script).name
    return PurePath(first).name
