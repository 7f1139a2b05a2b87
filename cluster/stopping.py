"""Asking a run to stop: Ctrl-C, or the SIGTERM with which a machine that is going away says so."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

from cluster.coordinator import Coordinator
from cluster.optional import optional_work
from cluster.runtimes.runtime import EVALUATOR, LEARNER, Role

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SETTLE_SECONDS = 8.0


@contextlib.contextmanager
def stopped_by_signals(coordinator: Coordinator) -> Iterator[None]:
    """First signal: an orderly end, with a checkpoint. Second: at once, by a KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        if coordinator.stop_requested:
            raise KeyboardInterrupt
        coordinator.stop_requested = True
        with contextlib.suppress(RuntimeError):  # another line is being printed
            coordinator.progress.message(
                "stopping: finishing the calls under way, then a checkpoint (again to stop at once)"
            )
        optional_work.give_up()

    previous = {name: signal.signal(name, stop) for name in SIGNALS}
    try:
        yield
    finally:
        optional_work.wanted = True
        for name, handler in previous.items():
            signal.signal(name, handler)


def settle(coordinator: Coordinator) -> None:
    """Lets the calls under way end, and collectors send what they hold; in a hurry once the run is asked to stop."""
    settling = _Settling(coordinator)
    settling.until_idle()
    for role in coordinator.collectors:
        if coordinator.supervisor.is_here(role):  # or it holds nothing
            coordinator.calls.begin(role, "finish")
    settling.until_idle()


class _Settling:
    """Waits for calls to end.

    A machine that goes away leaves half a minute. So a run that is asked to stop writes a checkpoint as soon as the
    learner and the shards are back; a shard that hangs is given up, and a collector that waits for a store, or hangs,
    is left behind with its unsent rows.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.deadline: float | None = None
        self.left: set[Role] = set()

    def until_idle(self) -> None:
        """Returns when no call is under way."""
        coordinator = self.coordinator
        while coordinator.busy or (coordinator.stop_requested and self.deadline is None):
            if coordinator.stop_requested and self.deadline is None:
                self._save()
                self.deadline = time.monotonic() + SETTLE_SECONDS
                continue
            coordinator.step()
            if self.deadline is not None and time.monotonic() > self.deadline:
                self._leave(coordinator.busy.intersection(coordinator.collectors) - self.left)

    def _save(self) -> None:
        coordinator = self.coordinator
        coordinator.evaluations.abandon()
        if EVALUATOR in coordinator.busy:
            coordinator.runtime.kill(EVALUATOR)  # it may be minutes from its end
        while coordinator.busy.intersection([LEARNER, *coordinator.shards]):  # shards that hang are given up together
            coordinator.step()
        coordinator.checkpoint()

    def _leave(self, late: set[Role]) -> None:
        for role in late:
            self.left.add(role)
            self.coordinator.progress.message(f"{role} has not come back for {SETTLE_SECONDS:.0f} s: ending without it")
            self.coordinator.runtime.kill(role)
