"""The suite's own task with faults: it hangs, raises or waits where environment variables say so.

Evaluations play one episode an environment; only collectors' environments live longer, and so only they fail.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import dm_env
import numpy as np
from numpy.typing import NDArray

from tests.tiny import EPISODE_STEPS, Tiny

FAILS_AFTER = 3 * EPISODE_STEPS
ONCE = "TINY_FAULT_FILE"
"""Names a file that exists once the fault has happened: it happens once in a run."""
STEP_SECONDS = "TINY_STEP_SECONDS"
"""How long a step takes."""


class Faulty(Tiny):
    """Does something worse than a step, once in the run, in an environment that has played three episodes."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.played = 0
        self.seconds = float(os.environ.get(STEP_SECONDS, "0"))

    def step(self, action: NDArray[np.floating]) -> dm_env.TimeStep:
        """A step, or the fault."""
        time.sleep(self.seconds)
        self.played += 1
        if self.played == FAILS_AFTER and ONCE in os.environ and first(Path(os.environ[ONCE])):
            self.fault()
        return super().step(action)

    def fault(self) -> None:
        """What goes wrong."""


class Hanging(Faulty):
    """Sleeps for an hour, as a render stuck in C would."""

    def fault(self) -> None:
        """Never comes back."""
        time.sleep(3600.0)


class Raising(Faulty):
    """Raises, as a lost OpenGL context would."""

    def fault(self) -> None:
        """Raises."""
        raise RuntimeError("GL error")


class Losing(Raising):
    """Raises, and takes the OpenGL of its process with it: nothing can be built there any more."""

    lost = False

    def __init__(self, seed: int) -> None:
        if Losing.lost:
            raise RuntimeError("no OpenGL context")
        super().__init__(seed)

    def fault(self) -> None:
        """Raises."""
        Losing.lost = True
        super().fault()


class Endless(Faulty):
    """Its episodes end where the run's time limit is; the fault is that it says that it has got as far as that."""

    def step(self, action: NDArray[np.floating]) -> dm_env.TimeStep:
        """A step that is never the last one."""
        self._steps = 0
        return super().step(action)


def first(file: Path) -> bool:
    """Whether this is the first call for the file in any process."""
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def slow(seed: int) -> Faulty:
    """Each step takes as long as the environment variable says."""
    return Faulty(seed)


def hanging(seed: int) -> Hanging:
    """Hangs once."""
    return Hanging(seed)


def raising(seed: int) -> Raising:
    """Raises once."""
    return Raising(seed)


def losing(seed: int) -> Losing:
    """Loses OpenGL once."""
    return Losing(seed)


def endless(seed: int) -> Endless:
    """Episodes as long as the time limit."""
    return Endless(seed)
