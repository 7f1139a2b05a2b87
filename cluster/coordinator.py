"""The coordinator: an event loop that grants work, moves weights and writes the run folder.

Collectors and learner work in calls of about a second. Before each call the rate limiter says how much it may do, so
that a side which is ahead is simply not called: back-pressure without queues. Weights travel with a collector's next
call once there are newer ones.
"""

from __future__ import annotations

import time
from typing import NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from cluster.budgets import Budgets
from cluster.calls import Calls
from cluster.control import Control
from cluster.evaluations import Evaluations
from cluster.fleet import Fleet
from cluster.offline import OfflineData
from cluster.progress import Progress
from cluster.recorder import Recorder
from cluster.runtimes.runtime import EVALUATOR, LEARNER, Call, Role, RoleDiedError, Runtime
from cluster.supervision import Supervisor
from cluster.telemetry.gauges import limiter_gauges, role_gauges, weights_gauges
from cluster.telemetry.telemetry import Telemetry
from cluster.waiting import in_words, waiting_sides
from cluster.weights import Publications, Weights
from common.config import Config
from common.errors import UserError
from common.reports import CollectReport, EvaluationReport, ReplayReport, UpdateReport
from common.room import Room
from common.run_folder import RunFolder
from replay_service.offline_limiter import limiter_of

REPLAY_REPORT_SECONDS = 2.0
PUBLISH_SECONDS = 1.0
KEPT_CHECKPOINTS = 3


class Coordinator:
    """Runs one training run from its newest checkpoint, or from nothing, to its end."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        runtime: Runtime,
        action_size: int,
        progress: Progress,
        telemetry: Telemetry,
        offline: OfflineData | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.runtime = runtime
        self.action_size = action_size
        self.progress = progress
        self.offline = offline
        self.telemetry = telemetry
        self.limiter = limiter_of(config)
        self.shards = [Role("replay", index) for index in range(config.replay.shards)]
        self.supervisor = Supervisor(
            runtime,
            config,
            self.folder.next_incarnation,
            progress.message,
            # Before there are weights there is nothing to save.
            hurried=lambda: self.stop_requested and self.weights is not None,
        )
        self.folder.room = Room(config.redis_timeout, progress.message, self.supervisor.excuse)
        self.calls = Calls(runtime, self.supervisor, self._ended)
        self.busy = self.calls.busy
        self.fleet = Fleet(config, runtime, self.supervisor, self.calls, progress.message)
        self.weights: Weights | None = None
        self.publications = Publications()
        self.weights_version = 0
        self.known_version: dict[Role, int] = {}
        self.budgets = Budgets(config, self.limiter, by_steps=runtime.slice_seconds is None)
        self.replay_reported = 0.0
        self.recounting = False
        self.restoring = False
        self.stop_requested = False
        self.control = Control(folder, self.limiter, progress.message)
        self.recorder: Recorder
        self.evaluations: Evaluations

    @property
    def collectors(self) -> list[Role]:
        """All collectors that may hold rows."""
        return self.fleet.collectors

    @property
    def at_work(self) -> set[Role]:
        """The roles with a call under way, those left out that only report."""
        return self.busy.difference(self.shards)

    # Granting work

    def grant(self) -> None:
        """Gives every idle role what it may do now."""
        idle = [role for role in self.fleet.working if role not in self.busy and self.supervisor.alive(role)]
        if self.recounting and not any(role in self.busy for role in [*self.collectors, *self.shards]):
            self.recount()
        if not any(role in self.busy for role in [*self.collectors, LEARNER]):
            self.control.apply(self.recorder)
        if self.control.wanted is None:
            for place, role in enumerate(self.budgets.in_turn(idle)):
                self._grant_steps(role, sharing=len(idle) - place)
            if LEARNER not in self.busy and self.supervisor.alive(LEARNER) and not self.restoring:
                self._grant_updates()
            if not self.recounting:
                for role in self.fleet.see_off():
                    self._left(role)
        self.grant_evaluation()
        now = time.monotonic()
        # Inline, by the clock would be different from run to run.
        due = self.runtime.slice_seconds is None or now - self.replay_reported >= REPLAY_REPORT_SECONDS
        collecting = any(role in self.busy for role in self.collectors)
        if due and (collecting or not self.recounting):  # a recount asks for itself, and must get no older answer
            self.replay_reported = now
            self.control.look()
            for role in self.shards:
                if role not in self.busy:
                    self.calls.begin(role, "report")

    def recount(self) -> None:
        """Takes in the rows that a collector inserted and did not report before it died, or that a shard has lost."""
        self.recounting = True  # the learner may die meanwhile, and until it is back work is granted
        try:
            if self.offline is not None:
                self.fill(self.offline)
            else:
                self._take_stock()
        except RoleDiedError:
            if not self.stop_requested:
                raise
            # A shard was given up; who resumes counts.
        self.recounting = False

    def _take_stock(self) -> None:
        reports = self.ask_shards()
        known = self.limiter.env_steps - self.limiter.lost_env_steps
        difference = sum(report.inserted_env_steps for report in reports) - known
        if difference < 0:
            self.limiter.lose(-difference)
            self.progress.message(f"{-difference:,} environment steps are lost with the replay store that held them")
        else:
            self.limiter.inserted(difference)
            self.telemetry.numbers.add("env_steps_total", difference)

    def ask_shards(self) -> list[ReplayReport]:
        """What each shard holds now."""
        reports = [cast(ReplayReport, self.calls.ask(role, "report")) for role in self.shards]
        for role, report in zip(self.shards, reports, strict=True):
            self._heard(role, report)
        return reports

    def _heard(self, role: Role, report: ReplayReport) -> None:
        self.supervisor.met(role, report.process)
        self.recorder.replayed(role.number, report)

    def fill(self, offline: OfflineData) -> None:
        """Inserts what the shards lack of the data that the run trains from."""
        inserted = [report.inserted_env_steps for report in self.ask_shards()]
        offline.fill(inserted, self.runtime.insert, lambda: self.stop_requested)
        stored = sum(report.inserted_env_steps for report in self.ask_shards())
        if stored > sum(inserted):
            self.progress.message(f"{stored:,} environment steps of {self.config.offline} are stored")
        self.supervisor.progressed(LEARNER)

    def collected_all(self) -> bool:
        """Whether no collector could take another step within the run's environment steps."""
        return not self.collectors or self.budgets.collected_all

    def _grant_steps(self, role: Role, sharing: int) -> None:
        """Lets a collector step, up to its share of what may still be inserted and of what the run still wants."""
        if self.recounting:
            return
        budget = self.budgets.steps(sharing)
        if not budget:
            return
        if self.weights is not None and self.weights.updates and self.known_version.get(role, 0) < self.weights.version:
            self.calls.begin(role, "set_weights", self.weights.version, self.weights.handle)
            self.known_version[role] = self.weights.version
            self.recorder.weights_lag(time.monotonic() - self.weights.published_at)
        self.budgets.grant(role, budget)
        self.calls.begin(role, "collect", budget, self.runtime.slice_seconds)

    def _grant_updates(self) -> None:
        """Lets the learner update, up to the next moment at which something is due."""
        if not self._windows():
            self._refuse_short_episodes()
            return
        count = self.budgets.updates(owed=self.collected_all())
        if count > 0:
            self.calls.begin(LEARNER, "update", count, self.runtime.slice_seconds)

    def _refuse_short_episodes(self) -> None:
        """Without a window to draw the learner waits for steps, and no more come: the band or the run is full."""
        reports = self.recorder.replay.values()
        stored = sum(report.inserted_env_steps for report in reports)
        up_to_date = stored == self.limiter.env_steps - self.limiter.lost_env_steps
        full = self.collected_all() or self.budgets.band_is_full
        if up_to_date and full and not self.at_work:
            length, lost = self.config.training.batch_length, self.limiter.lost_env_steps
            if self.limiter.updates:
                self.checkpoint()
            if lost:
                raise UserError(
                    f"no episode that is left has the {length} rows of a training window: {lost:,} environment steps "
                    "are lost with the replay store that held them; a larger --env-steps collects others"
                )
            episodes = sum(report.short_fragments for report in reports)
            raise UserError(
                f"no episode so far has the {length} rows of a training window "
                f"({episodes} were shorter): lower --training.batch-length"
            )

    def grant_evaluation(self) -> None:
        """Begins the next evaluation that is wanted, once the evaluator is free."""
        if self.evaluations.wanted and EVALUATOR not in self.busy and self.supervisor.alive(EVALUATOR):
            self.calls.begin(EVALUATOR, "evaluate", *self.evaluations.next_call())

    def _windows(self) -> int:
        return sum(report.windows for report in self.recorder.replay.values())

    # Calls and their ends

    def step(self) -> None:
        """Waits for one call to end and takes it in; keeps the display and the watchdog going meanwhile."""
        began = time.monotonic()
        waiting, idle = waiting_sides(self.collectors, self.busy), self.fleet.idle if self.fleet.elastic else 0
        self.calls.take_in()
        seconds = time.monotonic() - began
        for side in waiting:
            self.limiter.wait(side, seconds)
            self.recorder.blocked(side, seconds)
        if self.fleet.elastic and self._steady():
            self.fleet.watch(seconds, learner_waited="update" in waiting, idle=idle)
        if self.recorder.public_for >= PUBLISH_SECONDS:
            self.tell()
        prefill = bool(self.collectors) and self.limiter.env_steps < self.config.replay.prefill
        self.progress.update(
            self.recorder.snapshot(
                self.config,
                self.limiter,
                waiting=in_words(waiting_sides(self.collectors, self.busy), prefill=prefill),
                weights_version=self.weights_version,
                restarts=sum(self.supervisor.restarts.values()),
                last_evaluation=self.evaluations.last_return,
            )
        )

    def tell(self) -> None:
        """Makes public how the run is doing."""
        with self.telemetry.cost:
            numbers = self.telemetry.numbers
            limiter_gauges(numbers, self.limiter)
            acting = (self.known_version.get(role, 0) for role in self.collectors if self.supervisor.is_here(role))
            lag = self.publications.lag(acting, self.limiter.updates, time.monotonic())
            weights_gauges(numbers, self.weights_version, lag)
            role_gauges(numbers, [*self.fleet.expected, *self.shards, LEARNER, EVALUATOR], self.supervisor)
            self.recorder.publish()

    def ask_learner(self, method: str, *args: object) -> object:
        """Asks the learner; one that dies over a question is restored and asked again."""
        while True:
            try:
                return self.calls.ask(LEARNER, method, *args)
            except RoleDiedError:
                if method == "restore":
                    return None  # what brought the learner back has restored it

    def _ended(self, call: Call) -> None:
        role = call.role
        if call.died is not None:
            self._died(call)
            return
        match call.method:
            case "collect" | "finish":
                self._collected(role, cast(CollectReport, call.value))
                if call.method == "finish" and role in self.fleet.leaving:
                    self._left(role)
            case "update":
                self._updated(cast(UpdateReport, call.value))
            case "report":
                self._reported(role, cast(ReplayReport, call.value))
            case "evaluate":
                self.evaluations.done(cast(EvaluationReport, call.value))
                self.supervisor.progressed(EVALUATOR)

    def _died(self, call: Call) -> None:
        """A role's process is gone: what it had been granted is free again, and the supervisor starts it anew."""
        self.budgets.forget(call.role)
        self.known_version.pop(call.role, None)
        self.recounting = self.recounting or call.role in self.collectors
        assert call.died is not None
        if self.stop_requested and call.role != LEARNER:
            self.supervisor.leave(call.role)  # the run ends
            return
        if call.role in self.fleet.leaving:
            self._left(call.role)
            return
        if call.role == LEARNER and self.config.learners > 1:
            newest = self.folder.newest_checkpoint()
            self._end_without(f"learner 1 of {self.config.learners} died", newest.updates if newest else None)
        self.supervisor.died(call.role, call.died, at_once=call.role == LEARNER)
        if call.role == LEARNER:
            self._restore_learner()

    def _restore_learner(self) -> None:
        """Restarts the learner from the newest complete checkpoint; actors go on with the weights they have."""
        self.supervisor.restart_now(LEARNER)
        self.restoring = True
        while not self.supervisor.alive(LEARNER):  # its node may be gone, and another one on its way
            if not self.stop_requested:
                self.grant()
            self.calls.take_in()
        self.restoring = False
        checkpoint = self.folder.newest_checkpoint()
        updates = 0
        if checkpoint is not None:
            self.ask_learner("restore", checkpoint.files())
            updates = checkpoint.updates
        stored = self.limiter.env_steps - self.limiter.lost_env_steps
        self.limiter.restore({**self.limiter.state(), "updates": updates}, stored, self.budgets.outstanding)
        self.progress.message(f"the learner is back at {updates:,} updates")

    def _collected(self, role: Role, report: CollectReport) -> None:
        self.budgets.collected(role, report)
        self.recorder.collected(role.number, report)
        if report.inserted:
            self.supervisor.progressed(role)
        if not self.stop_requested:
            self.evaluations.want_if_due(self.weights, self.limiter.env_steps)

    def _left(self, role: Role) -> None:
        """A collector has sent what it held, and nothing more is to come from it."""
        self.budgets.forget(role)
        self.known_version.pop(role, None)
        self.recorder.left(role.number)
        self.fleet.gone(role)

    def _reported(self, role: Role, report: ReplayReport) -> None:
        """A shard in another life may have lost rows, or hold some that nobody was told of."""
        before = self.recorder.replay.get(role.number)
        self.recounting = self.recounting or (before is not None and report.life != before.life)
        self._heard(role, report)
        trouble = next((report.trouble for report in self.recorder.replay.values() if report.trouble), "")
        if bool(trouble) != self.supervisor.excused:
            patience = f"waiting up to {self.config.redis_timeout:.0f} s"
            self.progress.message(f"{trouble}; {patience}" if trouble else "the replay store answers again")
            self.recounting = self.recounting or not trouble  # it may hold what was stored and not acknowledged
        self.supervisor.excused = bool(trouble)

    def _updated(self, report: UpdateReport) -> None:
        if report.updates:
            self._learnt(report)
        # else a shard has come back empty since this was granted, and tells so itself
        if report.lost:
            self.checkpoint()
            self._end_without(report.lost, self.limiter.updates)

    def _end_without(self, lost: str, updates: int | None) -> NoReturn:
        """Several learners cannot go on without one: it may be its GPU or its node that is gone."""
        at = "it has no checkpoint yet" if updates is None else f"its checkpoint is at {updates:,} updates"
        raise UserError(
            f"{lost}, and the run has stopped; {at}; the same command resumes, or one with other --learners"
        )

    def _learnt(self, report: UpdateReport) -> None:
        self.limiter.updated(report.updates)
        self.recorder.updated(report)
        self.supervisor.progressed(LEARNER)
        if self.offline is not None and not self.stop_requested:
            self.evaluations.want_if_due(self.weights, self.limiter.env_steps)
        updates, training = self.limiter.updates, self.config.training
        first = updates == self.config.replay.pretrain
        if updates % training.publish_every == 0 or first:
            self.publish()
        if updates % training.log_every == 0:
            self.log()
        if updates % training.image_every == 0 or first:
            strip = cast("NDArray[np.uint8] | None", self.ask_learner("reconstruction_strip"))
            if strip is not None:
                self.recorder.board.image("reconstruction", strip, self.limiter.env_steps)
        if updates % training.checkpoint_every == 0 or updates in self.config.keep_at:
            self.checkpoint()

    # What is due now and then

    def publish(self) -> None:
        """Fetches the learner's weights and offers them under the next version; versions never go back."""
        weights = self.ask_learner("weights")
        self.weights_version = self.folder.next_weights_version()
        self.weights = Weights(
            self.weights_version, self.limiter.updates, self.runtime.share(weights), time.monotonic()
        )
        self.publications.add(self.weights)

    def checkpoint(self) -> None:
        """Writes a checkpoint that a resumed run can go on from, and deletes those no longer wanted."""
        files = cast("dict[str, bytes]", self.ask_learner("state"))
        state = {
            "updates": self.limiter.updates,
            "env_steps": self.limiter.env_steps,
            "weights_version": self.weights_version,
            "action_size": self.action_size,
            "limiter": self.limiter.state(),
            "collectors": len(self.fleet.working),
            "replay_random_states": [self._random_state(role) for role in self.shards],
            "evaluations": self.evaluations.state(),
            "wall_seconds": self.recorder.wall_seconds,
            "best_return": self.recorder.best_return,
            "offline_env_steps": self.offline.env_steps if self.offline is not None else None,
        }
        self.folder.write_checkpoint(self.limiter.updates, files, state)
        self.folder.prune_checkpoints(KEPT_CHECKPOINTS, self.config.keep_at)
        self.telemetry.numbers.set("checkpoint_timestamp_seconds", time.time())

    def _random_state(self, shard: Role) -> object:
        """Where a shard's random numbers stand; None for one that was given up when the run was asked to stop."""
        try:
            return self.calls.ask(shard, "random_state")
        except RoleDiedError:
            if not self.stop_requested:
                raise
            return None

    def log(self) -> None:
        """Writes a line of metrics.jsonl."""
        self.recorder.line(
            self.limiter.env_steps,
            self.limiter.updates,
            {
                "weights_version": self.weights_version,
                "replay_ratio": self.limiter.updates / max(1, self.limiter.env_steps),
                "role_restarts": sum(self.supervisor.restarts.values()),
                "collectors": len(self.fleet.working),
                "insert_blocked_seconds": self.limiter.insert_wait_seconds,
                "update_blocked_seconds": self.limiter.update_wait_seconds,
            },
        )

    def _steady(self) -> bool:
        """Whether who waits now says anything about how many collectors the run needs."""
        halted = self.recounting or self.restoring or self.supervisor.excused or self.stop_requested
        return self.limiter.updates > 0 and not halted and self.control.wanted is None and not self.collected_all()
