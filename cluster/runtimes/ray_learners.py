"""Several learners that share each batch: the first is the run's learner, the others are Ray actors of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from cluster.runtimes.roles import Setting, build_learner
from common.errors import UserError
from common.reports import UpdateReport
from common.usage import Usage, usage
from learner.data_parallel import DataParallel
from learner.feed import Batches
from learner.learner import Learner
from learner.meeting import LOOPBACK, Meeting, open_meeting, speak_from
from learner.ranks import RankLostError

COMING_SECONDS = 1.0
GRACE_SECONDS = 30.0
ANSWER_SECONDS = 120.0

StartRank = Callable[[int, Meeting], ActorHandle]


class LeadingLearner:
    """Rank 0; to the coordinator a learner like any other. What all ranks must do it has the others do too.

    The other ranks are owned by this process, and end with it. Weights and checkpoints are this rank's, whose
    parameters are everybody's. When another rank is lost the update under way is given up, and the report of the call
    says so: the state that this rank has then is that between two updates.

    Args:
        setting: the run's.
        batches: this rank's share of each batch.
        start: starts the actor of another rank, which builds its learner by `follow`.
    """

    def __init__(self, setting: Setting, batches: Batches, start: StartRank) -> None:
        self.size = setting.config.learners
        meeting, store = open_meeting(_address(setting), self.size)
        self.learner = _join(setting, batches, 0, lambda: store)
        self.weights = self.learner.weights
        self.state = self.learner.state
        self.reconstruction_strip = self.learner.reconstruction_strip
        self.about_batches = self.learner.about_batches
        self.others = {rank: start(rank, meeting) for rank in range(1, self.size)}
        self.coming = self._begin("place")

    def update(self, count: int, seconds: float | None = None) -> UpdateReport:
        """See `Learner.update`; nothing is done while a rank has no place to run yet.

        Raises:
            UserError: as there, on any rank; or the ranks compute on different devices.
        """
        report = UpdateReport(0, {}, 0.0, 0.0, usage())
        try:
            if not self._all_are_there():
                return report
            answers = self._begin("update", count, seconds)
            report = self.learner.update(count, seconds)
            if report.lost:
                self._blame(answers)
            for rank, answer in answers.items():
                other: UpdateReport = self._answer(rank, answer)
                report = dataclasses.replace(
                    report,
                    usage=_sum(report.usage, other.usage),
                    batch_bytes=report.batch_bytes + other.batch_bytes,
                )
        except RankLostError as error:
            return dataclasses.replace(report, lost=str(error))
        return report

    def restore(self, files: Mapping[str, bytes]) -> None:
        """See `Learner.restore`; every rank takes it over."""
        answers = self._begin("restore", ray.put(files))
        self.learner.restore(files)
        for rank, answer in answers.items():
            try:
                self._answer(rank, answer)
            except RankLostError as error:
                raise UserError(f"{error} while it was restored; the same command resumes") from None

    def _begin(self, method: str, *args: object) -> dict[int, ray.ObjectRef]:
        return {rank: actor.call.remote(method, *args) for rank, actor in self.others.items()}

    def _all_are_there(self) -> bool:
        """Whether each rank has a process, and all compute with the same."""
        if not self.coming:
            return True
        ready, missing = ray.wait([*self.coming.values()], num_returns=len(self.coming), timeout=COMING_SECONDS)
        places = {self._answer(rank, answer) for rank, answer in self.coming.items() if answer in ready}
        if missing:
            return False
        if different := places - {self.learner.place()}:
            raise UserError(
                f"the learners compute with different things ({self.learner.place()}; {'; '.join(sorted(different))}) "
                "and would drift apart: give them the same (--device, --training.learner-threads)"
            )
        self.coming = {}
        return True

    def _answer(self, rank: int, answer: ray.ObjectRef) -> Any:
        """What another rank answers; raises RankLostError when it has died, and what it raised itself."""
        try:
            return ray.get(answer)
        except RayActorError:
            raise RankLostError(f"learner {rank + 1} of {self.size} died") from None
        except RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise error.as_instanceof_cause() from None

    def _blame(self, answers: dict[int, ray.ObjectRef]) -> None:
        """Finds out who does not take part any more, and raises RankLostError for it."""
        ray.wait([*answers.values()], num_returns=len(answers), timeout=GRACE_SECONDS)
        for rank, answer in answers.items():
            if not ray.wait([answer], timeout=0)[0]:
                raise RankLostError(f"learner {rank + 1} of {self.size} does not answer")
            self._answer(rank, answer)


def follow(setting: Setting, batches: Batches, rank: int, meeting: Meeting) -> Learner:
    """The learner of another rank than the first."""
    return _join(setting, batches, rank, lambda: meeting.join(setting.config.learners))


def _join(setting: Setting, batches: Batches, rank: int, meet: Callable[[], dist.Store]) -> Learner:
    config = setting.config
    speak_from(_address(setting))
    # One rank waits for another that waits for the replay.
    timeout = timedelta(seconds=config.redis_timeout + ANSWER_SECONDS)
    ranks = DataParallel(rank, config.learners, torch.device(setting.device), meet, timeout)
    return build_learner(setting, batches, ranks)


def _address(setting: Setting) -> str:
    """Of this node, for the others: on one machine nothing leaves it."""
    address: str = ray.util.get_node_ip_address() if setting.config.ray_address else LOOPBACK
    return address


def _sum(one: Usage, other: Usage) -> Usage:
    """Of two processes together."""
    return Usage(
        one.resident_bytes + other.resident_bytes,
        one.cpu_seconds + other.cpu_seconds,
        one.telemetry_cpu_seconds + other.telemetry_cpu_seconds,
    )
