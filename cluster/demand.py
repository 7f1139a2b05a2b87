"""How many collectors a run needs, judged by whom the rate limiter holds back.

The limiter's band has two edges. At the one the learner waits for environment steps: collectors are too few. At the
other collectors wait for the learner: they are too many. In between nobody waits, and nothing is to be learnt.

With n collectors where `need` would just keep up with the learner, it is held back for 1 − n / need of the time, and
then ⌈need⌉ are wanted; or n − need collectors have nothing to do on average, and half of that leaves. So there is no
swinging: after growing fewer than one has nothing to do, which is not enough for one to leave; and never so many leave
that the learner would wait.
"""

from __future__ import annotations

import math
from typing import NamedTuple

GROW_SECONDS = 60.0
SHRINK_SECONDS = 300.0  # a collector that leaves breaks its episodes off: better too late than for nothing
STARVED = 0.1
IDLE_COLLECTORS = 1.5
LARGEST_GROWTH = 2.0


class Change(NamedTuple):
    """How many collectors there should be, and why."""

    collectors: int
    why: str


class Mean:
    """Means over one stretch of time after the other, each of `length` seconds or a bit more."""

    def __init__(self, length: float) -> None:
        self._length = length
        self._seconds = 0.0
        self._total = 0.0

    def over(self, value: float, seconds: float) -> float | None:
        """Something had this value for so long; the mean if a stretch ends with that."""
        self._seconds += seconds
        self._total += value * seconds
        if self._seconds < self._length:
            return None
        mean = self._total / self._seconds
        self._seconds = self._total = 0.0
        return mean


class Demand:
    """Watches who waits; whoever follows what it says begins with a new one."""

    def __init__(self) -> None:
        self._starved = Mean(GROW_SECONDS)
        self._idle = Mean(SHRINK_SECONDS)

    def watch(self, collectors: int, seconds: float, *, starved: bool, idle: int) -> Change | None:
        """Takes in how the last seconds were.

        Args:
            collectors: how many there are.
            seconds: for how long it was so.
            starved: the learner waited for environment steps, and every collector worked.
            idle: collectors that could have stepped and were not let.

        Returns:
            how many there should be, where that is another number.
        """
        held_back, without_work = self._starved.over(starved, seconds), self._idle.over(idle, seconds)
        if held_back is not None and held_back >= STARVED:
            factor = min(LARGEST_GROWTH, 1 / max(1e-9, 1 - held_back))
            return Change(math.ceil(collectors * factor), f"the learner waited for them {held_back:.0%} of the time")
        if without_work is not None and without_work >= IDLE_COLLECTORS:
            leave = max(1, math.floor(without_work / 2))
            return Change(collectors - leave, f"{without_work:.1f} of them had nothing to do on average")
        return None
