"""What the coordinator asks of a runtime: start roles, call them, wait for calls to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from common.errors import UserError
from common.sequence import Chunk


class Role(NamedTuple):
    """One role of the run: `Role("collector", 3)` is the fourth collector."""

    kind: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.number}" if self.kind in ("collector", "replay") else self.kind


LEARNER = Role("learner")
EVALUATOR = Role("evaluator")


class RoleDiedError(Exception):
    """The role's process is gone; the text says why."""


class Call(NamedTuple):
    """A call that ended.

    Attributes:
        role: who was called.
        method: what was called.
        value: what it returned, if it ended well.
        died: why the role's process is gone, if it is.
        failed: why the run must end, if the call found that out.
    """

    role: Role
    method: str
    value: object
    died: RoleDiedError | None = None
    failed: UserError | None = None


class Runtime(Protocol):
    """Puts roles somewhere and calls them. Calls to one role run one after another, in order."""

    slice_seconds: float | None
    """How long one call of a collector or the learner should last; None: as long as its budget."""

    def start(self, role: Role, incarnation: int) -> None:
        """Creates the role, or creates it again in a new life after its process is gone."""

    def is_up(self, role: Role) -> bool:
        """Whether the role's process is up; on a cluster one may wait for a node to be put on."""

    def call(self, role: Role, method: str, *args: object) -> None:
        """Begins a call; `wait` tells when it has ended. An exception that it raises is raised by `wait`."""

    def wait(self, timeout: float) -> Call | None:
        """The next call that ends, or None when none does within `timeout` seconds."""

    def insert(self, shard: int, chunks: Sequence[Chunk]) -> None:
        """Stores chunks in a replay shard, in this order; returns once they are acknowledged.

        Raises:
            StoreGaveUpError: the store was away for longer than anybody wanted to wait.
        """

    def share(self, value: object) -> object:
        """Puts a large value where every role can read it; give the result to `call` in its place."""

    def kill(self, role: Role) -> None:
        """Ends the role's process at once; calls under way end as `died`."""

    def shutdown(self) -> None:
        """Ends every role; unfinished calls are dropped."""
