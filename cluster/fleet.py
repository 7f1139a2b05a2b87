"""The collectors of a run: a fixed number, or as many as its learner needs and its cluster has room for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice

from cluster.calls import Calls
from cluster.demand import Demand
from cluster.runtimes.runtime import Role, Runtime
from cluster.supervision import Supervisor
from common.config import Config


class Fleet:
    """Lets collectors join and leave between --actors-min and --actors-max.

    A collector joins by being started. Where no node has room for it, it waits: that is what a cluster's autoscaler
    counts when it decides about another node, and whichever node joins takes it. Until then the fleet does not grow
    further. One that leaves sends what it holds first. Whoever joins later under its number is another incarnation.

    Args:
        config: the run's.
        runtime: ends processes.
        supervisor: starts them.
        calls: to them.
        tell: shows a message.

    Attributes:
        collectors: all that may hold rows or are on their way, those that leave included; none before `begin`.
        leaving: those that get no more work.
    """

    def __init__(
        self, config: Config, runtime: Runtime, supervisor: Supervisor, calls: Calls, tell: Callable[[str], None]
    ) -> None:
        self.least, self.most = config.least_actors, config.most_actors
        self.runtime = runtime
        self.supervisor = supervisor
        self.calls = calls
        self.tell = tell
        self.first = 0 if config.offline else config.first_actors
        self.collectors: list[Role] = []
        self.leaving: set[Role] = set()
        self.demand = Demand()

    @property
    def elastic(self) -> bool:
        """Whether its size may change."""
        return self.first > 0 and self.least < self.most

    @property
    def working(self) -> list[Role]:
        """Those that get work, or will when they are there."""
        return [role for role in self.collectors if role not in self.leaving]

    @property
    def expected(self) -> list[Role]:
        """Those that should be there: of the ones for which no node has room, only as many as the minimum wants."""
        placed = [role for role in self.working if self.supervisor.has_place(role)]
        homeless = [role for role in self.working if not self.supervisor.has_place(role)]
        return placed + homeless[: max(0, self.least - len(placed))]

    @property
    def idle(self) -> int:
        """How many could be called and are not."""
        return sum(role not in self.calls.busy and self.supervisor.is_here(role) for role in self.working)

    def begin(self, size: int | None) -> None:
        """Starts the collectors: as many as there were when the run was stopped, where that is still allowed."""
        first = self.first if size is None or not self.elastic else min(max(size, self.least), self.most)
        self.collectors = [Role("collector", index) for index in range(first)]
        for role in self.collectors:
            self.supervisor.start(role)

    def watch(self, seconds: float, *, learner_waited: bool, idle: int) -> None:
        """Takes in who waited for whom in the last seconds, and follows what the demand asks for."""
        working = self.working
        starved = learner_waited and not idle and all(self.supervisor.is_here(role) for role in working)
        change = self.demand.watch(len(working), seconds, starved=starved, idle=idle)
        if change is not None:
            self.resize(change.collectors, change.why)

    def resize(self, size: int, why: str) -> None:
        """Lets collectors join or leave until there are so many, within the bounds.

        Those for which no node has room leave first, as they hold nothing and make a cluster grow; then the highest
        numbers, so that every replay shard keeps its share.
        """
        working = self.working
        size = min(max(size, self.least), self.most)
        self.demand = Demand()
        if size == len(working):
            return
        self.tell(f"{size} collectors from here on, and were {len(working)}: {why}")
        if size < len(working):
            order = sorted(working, key=lambda role: (self.supervisor.has_place(role), -role.number))
            self.leaving.update(order[: len(working) - size])
            return
        taken = {role.number for role in self.collectors}
        free = (number for number in count() if number not in taken)
        for number in islice(free, size - len(working)):
            role = Role("collector", number)
            self.collectors.append(role)
            self.supervisor.start(role)

    def see_off(self) -> list[Role]:
        """Lets those that leave send what they hold; returns the ones that have no process, and so nothing to send."""
        empty: list[Role] = []
        for role in sorted(self.leaving - self.calls.busy):
            if self.supervisor.is_here(role):
                self.calls.begin(role, "finish")
            else:
                empty.append(role)
        return empty

    def gone(self, role: Role) -> None:
        """Ends the process of a collector that has left, where there is one."""
        if not self.supervisor.is_down(role):
            self.runtime.kill(role)
        self.supervisor.forget(role)
        self.leaving.discard(role)
        self.collectors.remove(role)
