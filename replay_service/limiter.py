"""One rate limiter for the run: keeps updates and environment steps in the ratio that was asked for.

With U updates, S inserted environment steps and g = train_ratio · max(0, S − prefill), the error U − g stays in the
band [−tolerance, pretrain + tolerance]: the learner waits at its upper end, inserts wait at its lower end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from common.config import Config
from common.errors import UserError

LEAST_TRAIN_RATIO = 1e-9  # below, an update would take more environment steps than any run has
_ROUNDING = 1e-6  # sums of floats are off by less; no count may change by one because of it


class RateLimiter:
    """Says how far the learner and the actors may go; the coordinator asks, and tells what was done.

    A run that resumes, or that loses stored rows, starts again within the band: what the error was beyond it is dropped
    and counted, so that neither side makes up for it in a burst. After a loss the learner waits until `prefill`
    environment steps are there again. When the train ratio changes, both sides keep their places in the band.

    Args:
        train_ratio: updates an environment step.
        prefill: environment steps before the first update.
        pretrain: updates owed as soon as the prefill is there.
        tolerance: updates that the error may be off on either side.
        held_env_steps: most environment steps that actors may have taken and not yet inserted.
        window_env_steps: environment steps after which the replay is sure to hold a window.

    Attributes:
        updates: U.
        env_steps: S, rows that were lost since included.
        lost_env_steps: how many of them were inserted into stores that have lost them.
        insert_wait_seconds: how long inserts waited for the learner.
        update_wait_seconds: how long the learner waited for inserts.
        replay_debt_dropped_updates: updates owed, or done ahead, that were forgiven.

    Raises:
        UserError: with such numbers both sides would wait for each other for ever.
    """

    def __init__(
        self,
        *,
        train_ratio: float,
        prefill: int,
        pretrain: int,
        tolerance: float,
        held_env_steps: int = 0,
        window_env_steps: int = 0,
    ) -> None:
        self._prefill = prefill
        self._pretrain = pretrain
        self._held_env_steps = held_env_steps
        self._window_env_steps = window_env_steps
        self._refuse_deadlock(train_ratio, tolerance)
        self._train_ratio = train_ratio
        self._tolerance = tolerance
        self._offset = 0.0  # what the error is shifted by, so that it went on within the band
        self.updates = 0
        self.env_steps = 0
        self.lost_env_steps = 0
        self.insert_wait_seconds = 0.0
        self.update_wait_seconds = 0.0
        self.replay_debt_dropped_updates = 0.0

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The limiter of a run: tolerance = max(1000, 2 · chunk_rows · action_repeat · environments) · train_ratio."""
        held = config.replay.chunk_rows * config.environment.action_repeat * config.environments
        return cls(
            train_ratio=config.train_ratio,
            prefill=config.replay.prefill,
            pretrain=config.replay.pretrain,
            tolerance=config.train_ratio * max(1000, 2 * held),
            held_env_steps=held,
            window_env_steps=first_window_env_steps(config),
        )

    @property
    def train_ratio(self) -> float:
        """Updates an environment step, as they are held now."""
        return self._train_ratio

    @property
    def error(self) -> float:
        """Updates done beyond those that the inserted environment steps call for."""
        return self.updates + self._offset - self._called_for()

    @property
    def band(self) -> tuple[float, float]:
        """Where the error stays: at the lower end inserts wait, at the upper end the learner."""
        return -self._tolerance, self._pretrain + self._tolerance

    def inserted(self, env_steps: int) -> None:
        """Environment steps were newly stored."""
        self.env_steps += env_steps

    def updated(self, updates: int) -> None:
        """Updates were done."""
        self.updates += updates

    def updates_allowed(self) -> int:
        """How many updates may start now, one after the other; 0 means that the learner waits."""
        if self._stored() < self._prefill:
            return 0
        return max(0, math.ceil(self._pretrain + self._tolerance - self.error - _ROUNDING))

    def updates_owed(self) -> int:
        """How many updates the inserted environment steps call for and that are not done: what a run ends with."""
        return max(0, math.floor(self._pretrain - self.error + _ROUNDING)) if self._stored() >= self._prefill else 0

    def env_steps_allowed(self) -> int:
        """How many environment steps may be inserted now, with no update meanwhile; 0 means that inserts wait."""
        updates = self.updates + self._offset + self._tolerance
        most = math.floor(self._prefill + updates / self._train_ratio + _ROUNDING)
        return max(0, most - self._stored())

    def wait(self, side: Literal["insert", "update"], seconds: float) -> None:
        """One side waited for the other."""
        if side == "insert":
            self.insert_wait_seconds += seconds
        else:
            self.update_wait_seconds += seconds

    def lose(self, env_steps: int) -> None:
        """Stores lost what had been inserted into them: of all inserted environment steps, this many are gone."""
        error = self.error
        self.lost_env_steps += env_steps
        self._resume_at(error)

    def set_train_ratio(self, train_ratio: float) -> None:
        """Changes the updates an environment step from here on; the band stays as wide in environment steps.

        Both sides keep their places: what the error is beyond [0, pretrain] is counted in environment steps and goes
        with the ratio. So a side that waits goes on waiting, and nobody catches up on what the new ratio would have
        called for in the past.

        Raises:
            UserError: with this ratio both sides would wait for each other for ever; nothing has changed.
        """
        scale = train_ratio / self._train_ratio
        self._refuse_deadlock(train_ratio, self._tolerance * scale)
        error = self.error
        plain = min(max(error, 0.0), float(self._pretrain))
        self._train_ratio = train_ratio
        self._tolerance *= scale
        self._resume_at(plain + (error - plain) * scale)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, in values that JSON keeps exactly."""
        return {
            "train_ratio": self._train_ratio,
            "updates": self.updates,
            "env_steps": self.env_steps,
            "lost_env_steps": self.lost_env_steps,
            "offset": self._offset,
            "insert_wait_seconds": self.insert_wait_seconds,
            "update_wait_seconds": self.update_wait_seconds,
            "replay_debt_dropped_updates": self.replay_debt_dropped_updates,
        }

    def restore(self, state: Mapping[str, Any], stored_env_steps: int, coming_env_steps: int = 0) -> None:
        """Goes on from a checkpoint, at its train ratio, with stores that may hold more than it knew of, or less.

        Args:
            state: what `state` returned, perhaps with other settings than those of now.
            stored_env_steps: environment steps ever inserted into the stores as they are now, evicted ones included.
            coming_env_steps: environment steps that may be inserted yet without being allowed again.
        """
        self.set_train_ratio(state.get("train_ratio", self._train_ratio))  # older checkpoints have none
        self.updates = state["updates"]
        self.env_steps = state["env_steps"]
        self.lost_env_steps = state["lost_env_steps"]
        self._offset = state["offset"]
        self.insert_wait_seconds = state["insert_wait_seconds"]
        self.update_wait_seconds = state["update_wait_seconds"]
        self.replay_debt_dropped_updates = state["replay_debt_dropped_updates"]
        difference = stored_env_steps - self._stored()
        if difference < 0:
            self.lose(-difference)
        else:
            self.inserted(difference)
            self._resume_at(self.error, coming_env_steps)

    def _refuse_deadlock(self, train_ratio: float, tolerance: float) -> None:
        prefill, pretrain = self._prefill, self._pretrain
        if not LEAST_TRAIN_RATIO <= train_ratio < math.inf:
            raise UserError(f"--train-ratio {train_ratio} must be a finite number, at least {LEAST_TRAIN_RATIO:g}")
        if not (prefill >= 0 and pretrain >= 0 and tolerance > 0):
            raise UserError(
                f"the limiter's tolerance {tolerance} must be above 0, "
                f"--replay.prefill {prefill} and --replay.pretrain {pretrain} not below"
            )
        slack = train_ratio * max(1, self._held_env_steps)
        if pretrain + 2 * tolerance <= slack:
            raise UserError(
                f"with a limiter tolerance of {tolerance} updates the learner would wait for rows that actors hold "
                f"back until a chunk is full; it must be above {(slack - pretrain) / 2}"
            )
        shortfall = math.ceil(self._window_env_steps - prefill - tolerance / train_ratio - _ROUNDING)
        if shortfall > 0:
            raise UserError(
                f"--replay.prefill {prefill} would stop the actors before there is anything to train on "
                f"(up to {self._window_env_steps} environment steps); give at least {prefill + shortfall}"
            )

    def _stored(self) -> int:
        return self.env_steps - self.lost_env_steps

    def _called_for(self) -> float:
        """g, of the environment steps that the stores still know of."""
        return self._train_ratio * max(0, self._stored() - self._prefill)

    def _resume_at(self, error: float, coming_env_steps: int = 0) -> None:
        """Goes on with this error, clipped so that it is in the band, and stays there when these steps have come."""
        # While the prefill is missing nothing may be owed, or inserts would stop before there is a window to draw.
        lowest = 0.0 if self._stored() < self._prefill else self._train_ratio * coming_env_steps - self._tolerance
        clipped = min(max(error, lowest), self._pretrain + self._tolerance)
        if abs(clipped - error) > _ROUNDING:
            self.replay_debt_dropped_updates += abs(clipped - error)
        self._offset = clipped - self.updates + self._called_for()


def first_window_env_steps(config: Config) -> int:
    """Inserted environment steps after which a window is sure to be drawable, all environments going in step.

    Raises:
        UserError: a window is longer than a whole episode.
    """
    length, repeat = config.training.batch_length, config.environment.action_repeat
    actions = math.ceil(config.environment.time_limit / repeat)
    if length > actions + 1:
        raise UserError(f"--training.batch-length {length} is longer than an episode, which has {actions + 1} rows")
    if config.replay.sampling != "uniform_episode":
        actions = min(actions, length + config.replay.chunk_rows)
    return config.environments * repeat * actions
