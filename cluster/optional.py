"""Work that nobody needs to go on from: an evaluation in this process."""

from __future__ import annotations

from collections.abc import Callable


class GivenUpError(BaseException):
    """Leaves optional work; no `except Exception` on its way takes it for a failure."""


class OptionalWork:
    """Work in the main thread, which hears signals: it is left wherever it is when the run is asked to stop.

    Attributes:
        wanted: once it is not, none is begun.
    """

    def __init__(self) -> None:
        self.wanted = True
        self._depth = 0

    def __call__(self, work: Callable[[], object]) -> None:
        """Does the work, or a part of it."""
        if not self.wanted:
            return
        self._depth += 1
        try:
            work()
        except GivenUpError:
            pass
        finally:
            self._depth -= 1

    def give_up(self) -> None:
        """Leaves what is under way, from a signal's handler; raises what leads out of it."""
        self.wanted = False
        if self._depth:
            raise GivenUpError


optional_work = OptionalWork()
"""Of this process, as its signals are."""
