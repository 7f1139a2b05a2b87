"""Keeps roles alive: restarts what died, kills what hangs, stops a run that makes no progress."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from cluster.runtimes.runtime import Role, RoleDiedError, Runtime
from common.config import Config
from common.errors import UserError

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 60.0
DEATHS_WITHOUT_PROGRESS = 8
NO_PROGRESS_SECONDS = 600.0
START_SECONDS = 120.0


class Supervisor:
    """Starts roles, and starts them again with a new incarnation, ever more slowly while they keep dying.

    Attributes:
        restarts: how often each kind of role was started again.
    """

    def __init__(
        self, runtime: Runtime, config: Config, next_incarnation: Callable[[], int], message: Callable[[str], None]
    ) -> None:
        self.runtime = runtime
        self.hang_seconds = config.environment.hang_seconds
        self.next_incarnation = next_incarnation
        self.message = message
        self.restarts: Counter[str] = Counter()
        self.deaths: Counter[Role] = Counter()
        self.down_until: dict[Role, float] = {}
        self.called_at: dict[Role, tuple[str, float]] = {}
        self.fresh: set[Role] = set()
        self.last_progress = time.monotonic()

    def start(self, role: Role) -> None:
        """Starts the role for the first time."""
        self.runtime.start(role, self.next_incarnation())
        self.fresh.add(role)

    def alive(self, role: Role) -> bool:
        """Whether the role can be called; one that is down is started again once its back-off is over."""
        until = self.down_until.get(role)
        if until is not None and time.monotonic() >= until:
            self.restart_now(role)
        return not self.is_down(role)

    def is_down(self, role: Role) -> bool:
        """Whether the role died and has not been started again yet."""
        return role in self.down_until

    def restart_now(self, role: Role) -> None:
        """Starts a role that died again, in a new life."""
        self.down_until.pop(role, None)
        self.restarts[role.kind] += 1
        self.start(role)

    def died(self, role: Role, why: RoleDiedError) -> None:
        """Notes a death; gives up on a role that cannot be kept alive.

        Raises:
            UserError: the role died time after time without any progress between.
        """
        self.called_at.pop(role, None)
        self.deaths[role] += 1
        if self.deaths[role] >= DEATHS_WITHOUT_PROGRESS:
            raise UserError(f"{role} died {self.deaths[role]} times in a row without progress: {why}")
        pause = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** (self.deaths[role] - 1))
        self.down_until[role] = time.monotonic() + pause
        self.message(f"{role} died and starts again in {pause:.0f} s: {why}")

    def called(self, role: Role, method: str) -> None:
        """Notes that a call begins."""
        self.called_at[role] = (method, time.monotonic())

    def ended(self, role: Role) -> None:
        """Notes that a call ended well."""
        self.called_at.pop(role, None)
        self.fresh.discard(role)

    def progressed(self, role: Role) -> None:
        """Notes that the role got something done."""
        self.deaths.pop(role, None)
        self.last_progress = time.monotonic()

    def watch(self) -> None:
        """Kills collectors that hang.

        Raises:
            UserError: nothing has moved for ten minutes; names who is being waited for.
        """
        now = time.monotonic()
        for role, (method, since) in list(self.called_at.items()):
            patience = self.hang_seconds + (START_SECONDS if role in self.fresh else self.runtime.slice_seconds or 0)
            if role.kind == "collector" and self.runtime.slice_seconds is not None and now - since > patience:
                self.message(f"{role} has not come back from {method} for {now - since:.0f} s: killing it")
                self.called_at[role] = (method, now)
                self.runtime.kill(role)
        if any(role.kind == "evaluator" for role in self.called_at):
            self.last_progress = now  # an evaluation takes as long as its episodes, and its process ends if one hangs
        if now - self.last_progress > NO_PROGRESS_SECONDS:
            waited = ", ".join(f"{role} ({method})" for role, (method, _) in self.called_at.items())
            raise UserError(f"no progress for {NO_PROGRESS_SECONDS / 60:.0f} minutes; waiting for {waited or 'nobody'}")
