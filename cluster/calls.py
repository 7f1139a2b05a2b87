"""Calls to roles that are under way, and questions whose answers are needed at once."""

from __future__ import annotations

from collections.abc import Callable

from cluster.runtimes.runtime import Call, Role, Runtime
from cluster.supervision import Supervisor

WAIT_SECONDS = 0.5


class Calls:
    """One call at a time for each role.

    Args:
        runtime: makes the calls.
        supervisor: watches over them.
        ended: takes in each call that ended; it may ask questions of its own.

    Attributes:
        busy: the roles that a call is under way to.
    """

    def __init__(self, runtime: Runtime, supervisor: Supervisor, ended: Callable[[Call], None]) -> None:
        self.runtime = runtime
        self.supervisor = supervisor
        self.ended = ended
        self.busy: set[Role] = set()
        self._asking: list[tuple[Role, str]] = []
        self._answers: dict[tuple[Role, str], Call] = {}

    def begin(self, role: Role, method: str, *args: object) -> None:
        """Calls; what comes of it is taken in when it ends."""
        self.busy.add(role)
        self.supervisor.called(role, method)
        self.runtime.call(role, method, *args)

    def take_in(self) -> None:
        """Waits a moment for one call to end, and takes it in."""
        call = self.runtime.wait(WAIT_SECONDS)
        if call is not None:
            self._take_in(call)
        self.supervisor.watch()

    def ask(self, role: Role, method: str, *args: object) -> object:
        """A call whose result is needed at once; others that end meanwhile are taken in as usual.

        Taking them in may wait for others again, or ask, so an answer that comes meanwhile is kept.

        Raises:
            RoleDiedError: the role died over it; its death has been taken in.
            UserError: the call found out that the run must end.
        """
        question = (role, method)
        self.begin(role, method, *args)
        self._asking.append(question)
        try:
            while question not in self._answers:
                self.take_in()
        finally:
            self._asking.remove(question)
            if (call := self._answers.pop(question, None)) is not None:
                self.busy.discard(role)
        assert call is not None
        if call.died is not None:
            self._take_in(call)
            raise call.died
        self.supervisor.ended(role)
        if call.failed is not None:
            raise call.failed
        return call.value

    def _take_in(self, call: Call) -> None:
        if (call.role, call.method) in self._asking:
            self._answers[call.role, call.method] = call
            return
        if call.method == "set_weights":
            return  # a collect follows at once, and tells if the role is gone
        self.busy.discard(call.role)
        if call.died is None:
            self.supervisor.ended(call.role)
        if call.failed is not None:
            raise call.failed
        self.ended(call)
