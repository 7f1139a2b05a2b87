"""How much each side may do next: the limiter's grants, less what is under way."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cluster.runtimes.runtime import Role
from common.config import Config
from common.reports import CollectReport
from replay_service.limiter import RateLimiter

INLINE_UPDATES = 10


class Budgets:
    """Divides what the limiter allows into calls.

    Args:
        config: the run's.
        limiter: the run's.
        by_steps: calls end after a number of steps instead of after a time, so that a seed decides what happens.

    Attributes:
        granted: environment steps that a collector was called for and has not reported.
        held: environment steps that a collector reported and has not inserted yet.
    """

    def __init__(self, config: Config, limiter: RateLimiter, *, by_steps: bool) -> None:
        self.config = config
        self.limiter = limiter
        self.by_steps = by_steps
        self.stride = config.envs_per_actor * config.environment.action_repeat
        self.granted: dict[Role, int] = {}
        self.held: dict[Role, int] = {}
        self._turns = itertools.count(1)
        self._turn: dict[Role, int] = {}  # each collector's last

    @property
    def outstanding(self) -> int:
        """Environment steps that were granted and are not inserted yet."""
        return sum(self.granted.values()) + sum(self.held.values())

    @property
    def collected_all(self) -> bool:
        """Whether no collector could take another step within the run's environment steps."""
        return self.limiter.env_steps + sum(self.held.values()) > self.config.env_steps - self.stride

    @property
    def band_is_full(self) -> bool:
        """Whether no collector may take another step before the learner updates."""
        return self.limiter.env_steps_allowed() - sum(self.held.values()) < self.stride

    def steps(self, sharing: int) -> int:
        """Environment steps for a collector: its share of what may be inserted and of what the run wants; 0 for none.

        Args:
            sharing: so many collectors divide it.
        """
        outstanding = self.outstanding
        allowed = self.limiter.env_steps_allowed() - outstanding
        wanted = self.config.env_steps - self.limiter.env_steps - outstanding
        budget = min(allowed, wanted) // sharing
        if self.by_steps:
            budget = min(budget, self.stride * self.config.replay.chunk_rows)
        return budget if budget >= self.stride else 0

    def in_turn(self, collectors: Sequence[Role]) -> list[Role]:
        """Collectors in the order in which they are to share; where that is too little for all, the last one has it.

        So whoever has waited longest comes last: were it always the same, others would never step.
        """
        return sorted(collectors, key=lambda role: self._turn.get(role, 0), reverse=True)

    def grant(self, role: Role, env_steps: int) -> None:
        """A collector is called for so many."""
        self.granted[role] = env_steps
        self._turn[role] = next(self._turns)

    def updates(self, *, owed: bool) -> int:
        """Updates for the learner, up to the next moment at which something is due.

        Args:
            owed: nothing more is collected: all that is left may be done.
        """
        done, training = self.limiter.updates, self.config.training
        due = min(
            every - done % every
            for every in (training.log_every, training.publish_every, training.checkpoint_every, training.image_every)
        )
        due = min([due, *(mark - done for mark in (self.config.replay.pretrain, *self.config.keep_at) if mark > done)])
        count = min(self.limiter.updates_owed() if owed else self.limiter.updates_allowed(), due)
        return min(count, INLINE_UPDATES) if self.by_steps else count

    def collected(self, role: Role, report: CollectReport) -> None:
        """A collector has reported."""
        self.granted.pop(role, None)
        self.held[role] = report.held
        self.limiter.inserted(report.inserted)

    def forget(self, role: Role) -> None:
        """A collector is gone: what it had been granted is free again."""
        self.granted.pop(role, None)
        self.held.pop(role, None)
        self._turn.pop(role, None)
