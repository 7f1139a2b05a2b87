"""Keeps roles alive: restarts what died, kills what hangs, stops a run that makes no progress."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from cluster.runtimes.runtime import Role, RoleDiedError, Runtime
from cluster.telemetry.cost import CpuCost, costed
from common.config import Config
from common.errors import UserError

FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 60.0
DEATHS_WITHOUT_PROGRESS = 8
NO_PROGRESS_SECONDS = 600.0
START_SECONDS = 120.0
SLOW_SECONDS = 60.0
PLACE_SECONDS = 30.0
WATCH_SECONDS = 0.1
HURRY_SECONDS = 8.0


class Supervisor:
    """Starts roles, and starts them again with a new incarnation, ever more slowly while they keep dying.

    Args:
        runtime: where roles are.
        config: the run's.
        next_incarnation: a number that no role had before.
        message: says something to people.
        hurried: whether the run is to stop, so that a shard which hangs is not waited for.

    Attributes:
        restarts: how often each kind of role was started again.
        excused: everybody waits for the replay store, and nobody is to blame for it.
        cost: the CPU time that watching takes.
    """

    def __init__(
        self,
        runtime: Runtime,
        config: Config,
        next_incarnation: Callable[[], int],
        message: Callable[[str], None],
        hurried: Callable[[], bool],
    ) -> None:
        self.runtime = runtime
        self.hurried = hurried
        self.hang_seconds = config.environment.hang_seconds
        self.stored_stays = config.replay_store != "memory"
        self.next_incarnation = next_incarnation
        self.message = message
        self.restarts: Counter[str] = Counter()
        self.excused = False
        self.cost = CpuCost()
        self.deaths: Counter[Role] = Counter()
        self.down_until: dict[Role, float] = {}
        self.called_at: dict[Role, tuple[str, float]] = {}
        self.fresh: set[Role] = set()
        self.homeless: dict[Role, float] = {}
        self.told: set[Role] = set()
        self.slow: dict[Role, tuple[str, float]] = {}
        self.processes: dict[Role, str] = {}
        self.last_progress = self.watched = time.monotonic()
        self.hurried_at = math.inf

    def start(self, role: Role) -> None:
        """Starts the role for the first time."""
        self.told.discard(role)
        self.runtime.start(role, self.next_incarnation())
        self.fresh.add(role)

    def alive(self, role: Role) -> bool:
        """Whether the role can be called; one that is down is started again once its back-off is over."""
        until = self.down_until.get(role)
        if until is not None and time.monotonic() >= until:
            self.restart_now(role)
        return not self.is_down(role) and self._is_up(role)

    def _is_up(self, role: Role) -> bool:
        """Whether the role's process is there; says so when it has had no place for long."""
        if self.runtime.is_up(role):
            self.homeless.pop(role, None)
            return True
        since = self.homeless.setdefault(role, time.monotonic())
        if time.monotonic() - since > PLACE_SECONDS and role not in self.told:
            self.told.add(role)
            self.message(f"{role} waits for a node with room for it (ray status tells what there is)")
        return False

    def is_down(self, role: Role) -> bool:
        """Whether the role died and has not been started again yet."""
        return role in self.down_until

    def has_place(self, role: Role) -> bool:
        """Whether the role's process is there, or on its way to a node that has room for it."""
        return role not in self.homeless

    def is_here(self, role: Role) -> bool:
        """Whether the role can be called, as far as is known."""
        return self.has_place(role) and not self.is_down(role)

    def forget(self, role: Role) -> None:
        """The role is not wanted any more, and gone."""
        self.told.discard(role)
        self.fresh.discard(role)
        for known in (self.deaths, self.down_until, self.called_at, self.homeless, self.slow):
            known.pop(role, None)

    def restart_now(self, role: Role) -> None:
        """Starts a role that died again, in a new life."""
        self.down_until.pop(role, None)
        self.restarts[role.kind] += 1
        self.start(role)

    def died(self, role: Role, why: RoleDiedError, at_once: bool = False) -> None:
        """Notes a death; gives up on a role that cannot be kept alive.

        Args:
            role: who died.
            why: and how.
            at_once: the caller restarts it now, instead of waiting for its back-off.

        Raises:
            UserError: the role died time after time without any progress between.
        """
        self.called_at.pop(role, None)
        self.slow.pop(role, None)
        self.deaths[role] += 1
        if self.deaths[role] >= DEATHS_WITHOUT_PROGRESS:
            raise UserError(f"{role} died {self.deaths[role]} times in a row without progress: {why}")
        pause = min(LONGEST_BACK_OFF_SECONDS, FIRST_BACK_OFF_SECONDS * 2 ** (self.deaths[role] - 1))
        self.down_until[role] = time.monotonic() + pause
        self.message(f"{role} died and starts again{'' if at_once else f' in {pause:.0f} s'}: {why}")

    def leave(self, role: Role) -> None:
        """Notes a death that nothing is to be done about: the run ends."""
        self.called_at.pop(role, None)
        self.slow.pop(role, None)
        self.down_until[role] = math.inf

    def met(self, role: Role, process: str) -> None:
        """Counts a replay shard that Ray has started again: it has met another process of it before."""
        if self.processes.get(role, process) != process:
            self.restarts[role.kind] += 1
            self.message(f"{role} died and is back on its store")
        self.processes[role] = process

    @costed
    def called(self, role: Role, method: str) -> None:
        """Notes that a call begins."""
        self.called_at[role] = (method, time.monotonic())

    @costed
    def ended(self, role: Role) -> None:
        """Notes that a call ended well."""
        self.called_at.pop(role, None)
        if role in self.slow:
            method, since = self.slow.pop(role)
            self.message(f"{role} is back from {method}, after {time.monotonic() - since:.0f} s")
        self.fresh.discard(role)

    @costed
    def progressed(self, role: Role) -> None:
        """Notes that the role got something done."""
        self.deaths.pop(role, None)
        self.last_progress = time.monotonic()

    def excuse(self) -> None:
        """Nobody is to blame for the time until now."""
        now = time.monotonic()
        self.called_at = {role: (method, now) for role, (method, _) in self.called_at.items()}
        self.last_progress = now

    def _name_slow(self, now: float) -> None:
        """Names who keeps everybody waiting, once."""
        for role, (method, since) in self.called_at.items():
            patience = NO_PROGRESS_SECONDS if role.kind == "evaluator" else SLOW_SECONDS
            patience += START_SECONDS if role in self.fresh else 0.0
            if now - since > patience and role not in self.slow and role.kind != "collector":
                self.slow[role] = (method, since)
                self.message(f"{role} has not come back from {method} for {now - since:.0f} s")

    def _give_up_shards(self, now: float) -> None:
        """Ends those that do not come back, once the run is to stop: what they acknowledged is in their stores."""
        self.hurried_at = min(self.hurried_at, now) if self.hurried() else math.inf
        for role, (method, since) in self.called_at.items():
            waited = now - max(since, self.hurried_at)
            if role.kind == "replay" and waited > HURRY_SECONDS and self.runtime.slice_seconds is not None:
                kept = "; what it had acknowledged stays stored" if self.stored_stays else ""
                self.message(f"{role} has not come back from {method} for {waited:.0f} s: ending without it{kept}")
                self.called_at[role] = (method, now)
                self.runtime.kill(role)

    @costed
    def watch(self) -> None:
        """Kills collectors that hang, and names others that keep everybody waiting.

        Raises:
            UserError: nothing has moved for ten minutes; names who is being waited for.
        """
        now = time.monotonic()
        unseen = now - self.watched
        if 0 <= unseen < WATCH_SECONDS:
            return  # of hundreds of roles a call ends every few milliseconds
        self.watched = now
        # Where the coordinator itself was held up, by a slow disk perhaps, calls have ended and nobody took them in.
        if self.excused or unseen > self.hang_seconds / 2:
            self.excuse()
        self._name_slow(now)
        self._give_up_shards(now)
        # A collector that waits for a shard that hangs is not to blame.
        shard_hangs = any(
            role.kind == "replay" and now - since > SLOW_SECONDS / 2 for role, (_, since) in self.called_at.items()
        )
        for role, (method, since) in list(self.called_at.items()):
            patience = self.hang_seconds + (START_SECONDS if role in self.fresh else self.runtime.slice_seconds or 0)
            killable = role.kind == "collector" and self.runtime.slice_seconds is not None and not shard_hangs
            if killable and now - since > patience:
                self.message(f"{role} has not come back from {method} for {now - since:.0f} s: killing it")
                self.called_at[role] = (method, now)
                self.runtime.kill(role)
        if any(role.kind == "evaluator" for role in self.called_at):
            self.last_progress = now  # an evaluation takes as long as its episodes, and its process ends if one hangs
        if now - self.last_progress > NO_PROGRESS_SECONDS:
            waited = ", ".join(
                [f"{role} ({method})" for role, (method, _) in self.called_at.items()]
                + [f"{role} (no node has room for it)" for role in self.homeless]
            )
            raise UserError(f"no progress for {NO_PROGRESS_SECONDS / 60:.0f} minutes; waiting for {waited or 'nobody'}")
