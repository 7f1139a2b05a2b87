"""The rate limiter of a run that collects nothing: environment steps are counted as if they had been collected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from common.config import Config
from common.errors import UserError
from replay_service.limiter import RateLimiter

_ROUNDING = 1e-6


class OfflineLimiter(RateLimiter):
    """Grants pretrain + train_ratio · (env_steps − prefill) updates, as many as a run that collects ends with.

    `env_steps` follows the updates: S = prefill + (U − pretrain) / train_ratio. So metrics, evaluations and curves of
    such a run have the same axis as those of any other.

    Args:
        env_steps: environment steps of the run.
        train_ratio: updates an environment step.
        prefill: environment steps that cost no update.
        pretrain: updates that cost no environment step.

    Raises:
        UserError: a number is not as it must be.
    """

    def __init__(self, *, env_steps: int, train_ratio: float, prefill: int, pretrain: int) -> None:
        super().__init__(train_ratio=train_ratio, prefill=prefill, pretrain=pretrain, tolerance=1 + train_ratio)
        self._end = env_steps
        self._total = pretrain + math.floor(train_ratio * (env_steps - prefill) + _ROUNDING)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The limiter of an offline run."""
        return cls(
            env_steps=config.env_steps,
            train_ratio=config.train_ratio,
            prefill=config.replay.prefill,
            pretrain=config.replay.pretrain,
        )

    def updated(self, updates: int) -> None:
        """Updates were done."""
        super().updated(updates)
        self.env_steps = self._called_for_by(self.updates)

    def updates_allowed(self) -> int:
        """How many updates are left."""
        return max(0, self._total - self.updates)

    def updates_owed(self) -> int:
        """How many updates are left."""
        return self.updates_allowed()

    def set_train_ratio(self, train_ratio: float) -> None:
        """Refuses another ratio: how many updates there are in all was decided by the first.

        Raises:
            UserError: this is another one.
        """
        if train_ratio != self._train_ratio:
            raise UserError("the train ratio of an --offline run stays as it is: it decides how many updates there are")

    def env_steps_allowed(self) -> int:
        """None: nobody inserts."""
        return 0

    def restore(self, state: Mapping[str, Any], stored_env_steps: int, coming_env_steps: int = 0) -> None:
        """Goes on from a checkpoint; what the stores hold does not matter."""
        env_steps = self._called_for_by(state["updates"])
        super().restore({**state, "env_steps": env_steps}, env_steps)

    def _called_for_by(self, updates: int) -> int:
        """Environment steps that a run which collects has when it has done so many updates."""
        if updates == 0:
            return 0
        if updates >= self._total:
            return self._end
        return self._prefill + math.floor(max(0, updates - self._pretrain) / self._train_ratio + _ROUNDING)


def limiter_of(config: Config) -> RateLimiter:
    """The limiter of a run.

    Raises:
        UserError: with the configuration's numbers both sides would wait for each other for ever.
    """
    return OfflineLimiter.from_config(config) if config.offline else RateLimiter.from_config(config)
