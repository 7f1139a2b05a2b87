"""What a thread's CPU time goes into."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class CpuCost:
    """Adds up the CPU seconds of the blocks that it is entered for, all in one thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._began = 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._began = time.thread_time()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.thread_time() - self._began


class _HasCost(Protocol):
    cost: CpuCost


_Self = TypeVar("_Self", bound=_HasCost)


def costed(
    method: Callable[Concatenate[_Self, _Parameters], _Result],
) -> Callable[Concatenate[_Self, _Parameters], _Result]:
    """Counts a method's CPU time into its object's `cost`."""

    @functools.wraps(method)
    def measured(self: _Self, *args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with self.cost:
            return method(self, *args, **kwargs)

    return measured
