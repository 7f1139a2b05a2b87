"""The coordinator: an event loop that grants work, moves weights and writes the run folder.

Collectors and learner work in calls of about a second. Before each call the rate limiter says how much it may do, so
that a side which is ahead is simply not called: back-pressure without queues. Weights travel with a collector's next
call once there are newer ones.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cluster.evaluations import Evaluations
from cluster.progress import Progress, Waiting
from cluster.recorder import Recorder
from cluster.runtimes.runtime import Call, Role, Runtime
from cluster.supervision import Supervisor
from cluster.weights import Weights
from common.config import Config
from common.reports import CollectReport, EvaluationReport, ReplayReport, UpdateReport
from common.run_folder import RunFolder
from replay_service.limiter import RateLimiter

LEARNER = Role("learner")
EVALUATOR = Role("evaluator")
REPLAY_REPORT_SECONDS = 2.0
INLINE_UPDATES = 10
KEPT_CHECKPOINTS = 3


class Coordinator:
    """Runs one training run from its newest checkpoint, or from nothing, to its end."""

    def __init__(
        self, config: Config, folder: RunFolder, runtime: Runtime, action_size: int, progress: Progress
    ) -> None:
        self.config = config
        self.folder = folder
        self.runtime = runtime
        self.action_size = action_size
        self.progress = progress
        self.limiter = RateLimiter.from_config(config)
        self.collectors = [Role("collector", index) for index in range(config.actors)]
        self.shards = [Role("replay", index) for index in range(config.replay.shards)]
        self.supervisor = Supervisor(runtime, config, self.folder.next_incarnation, progress.message)
        self.weights: Weights | None = None
        self.weights_version = 0
        self.known_version: dict[Role, int] = {}
        self.granted: dict[Role, int] = {}
        self.held: dict[Role, int] = {}
        self.busy: set[Role] = set()
        self.replay_reported = 0.0
        self.recounting = False
        self.asking: list[tuple[Role, str]] = []
        self.answers: dict[tuple[Role, str], Call] = {}
        self.stop_requested = False
        self.recorder: Recorder
        self.evaluations: Evaluations

    def run(self) -> dict[str, Any]:
        """Trains to the end, or until asked to stop; returns the summary."""
        previous = {name: signal.signal(name, self._on_signal) for name in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._begin()
            while not self._finished():
                self._grant()
                self._step()
            return self._end()
        finally:
            for name, handler in previous.items():
                signal.signal(name, handler)
            if hasattr(self, "recorder"):
                self.recorder.close()

    # Beginning and end

    def _begin(self) -> None:
        checkpoint = self.folder.newest_checkpoint()
        for damaged in self.folder.skipped:
            self.progress.message(f"checkpoint {damaged} is damaged: using the one before it")
        state: dict[str, Any] = dict(checkpoint.state) if checkpoint is not None else {}
        self.recorder = Recorder(
            self.folder, state.get("wall_seconds", 0.0), state.get("best_return"), state.get("env_steps")
        )
        self.evaluations = Evaluations(self.config, self.folder, self.recorder, self.progress.message)
        for role in [*self.shards, LEARNER, EVALUATOR]:
            self.supervisor.start(role)
        stored = 0
        for role in self.shards:
            report = cast(ReplayReport, self._ask(role, "report"))
            self.recorder.replayed(role.number, report)
            stored += report.inserted_env_steps
        if checkpoint is not None:
            self._ask(LEARNER, "restore", checkpoint.files())
            self.weights_version = state["weights_version"]
            self.evaluations.restore(state["evaluations"])
            for role, random_state in zip(self.shards, state["replay_random_states"], strict=True):
                self._ask(role, "set_random_state", random_state)
            self.limiter.restore(state["limiter"], stored)
            dropped = self.limiter.replay_debt_dropped_updates
            self.progress.message(
                f"resumed at {self.limiter.env_steps:,} environment steps, {self.limiter.updates:,} updates"
                + (f"; {dropped:,.0f} updates of replay debt dropped" if dropped else "")
            )
        elif stored:
            self.limiter.restore(self.limiter.state(), stored)
            self.progress.message(f"no checkpoint yet: taking up {stored:,} environment steps from the replay store")
        self._publish()
        self.evaluations.want_first(self.weights, self.limiter.env_steps)
        for role in self.collectors:
            self.supervisor.start(role)

    def _finished(self) -> bool:
        if self.stop_requested:
            return True
        return (
            self._collected_all() and not self.limiter.updates_owed() and not self.busy and not self.evaluations.wanted
        )

    def _collected_all(self) -> bool:
        """Whether no collector could take another step within the run's environment steps."""
        return self.limiter.env_steps + sum(self.held.values()) > self.config.env_steps - self._stride()

    def _end(self) -> dict[str, Any]:
        while self.busy:
            self._step()
        for role in self.collectors:
            if not self.supervisor.is_down(role):  # one that is down holds nothing
                self._call(role, "finish")
        while self.busy:
            self._step()
        self._publish()
        if not self.stop_requested:
            self._checkpoint()  # what follows takes a while
            self.evaluations.want(self.weights, self.limiter.env_steps, self.config.final_eval_episodes)
            while (self.evaluations.wanted or self.busy) and not self.stop_requested:
                self._grant_evaluation()
                self._step()
        finished = not self.stop_requested
        if self.recorder.totals.updates or self.recorder.totals.env_steps:
            self._log()
        self._checkpoint()
        summary = self._summary(finished)
        self.folder.write_summary(summary)
        return summary

    def _summary(self, finished: bool) -> dict[str, Any]:
        limiter = self.limiter
        return {
            "finished": finished,
            "task": self.config.task,
            "algorithm": self.config.algorithm,
            "seed": self.config.seed,
            "env_steps": limiter.env_steps,
            "updates": limiter.updates,
            "wall_seconds": self.recorder.wall_seconds,
            "random_return": self.evaluations.random_return,
            "first_return": self.evaluations.first_return,
            "last_return": self.evaluations.last_return,
            "best_episode_return": self.recorder.best_return,
            "weights_version": self.weights_version,
            "role_restarts": self.supervisor.restarts,
            "insert_wait_seconds": limiter.insert_wait_seconds,
            "update_wait_seconds": limiter.update_wait_seconds,
            "replay_debt_dropped_updates": limiter.replay_debt_dropped_updates,
            "resident_bytes": self.recorder.memory,
        }

    # Granting work

    def _grant(self) -> None:
        """Gives every idle role what it may do now."""
        idle = [role for role in self.collectors if role not in self.busy and self.supervisor.alive(role)]
        if self.recounting and not any(role in self.busy for role in self.collectors):
            self._recount()
        for place, role in enumerate(idle):
            self._grant_steps(role, sharing=len(idle) - place)
        if LEARNER not in self.busy and self.supervisor.alive(LEARNER):
            self._grant_updates()
        self._grant_evaluation()
        now = time.monotonic()
        # Inline, by the clock would be different from run to run.
        if self.runtime.slice_seconds is None or now - self.replay_reported >= REPLAY_REPORT_SECONDS:
            self.replay_reported = now
            for role in self.shards:
                if role not in self.busy:
                    self._call(role, "report")

    def _recount(self) -> None:
        """Takes in the rows that a collector had inserted, and not yet reported, when it died."""
        reports = [cast(ReplayReport, self._ask(role, "report")) for role in self.shards]
        known = self.limiter.env_steps - self.limiter.lost_env_steps
        self.limiter.inserted(sum(report.inserted_env_steps for report in reports) - known)
        self.recounting = False

    def _stride(self) -> int:
        return self.config.envs_per_actor * self.config.environment.action_repeat

    def _grant_steps(self, role: Role, sharing: int) -> None:
        """Lets a collector step, up to its share of what may still be inserted and of what the run still wants."""
        if self.recounting:
            return
        outstanding = sum(self.granted.values()) + sum(self.held.values())
        allowed = self.limiter.env_steps_allowed() - outstanding
        wanted = self.config.env_steps - self.limiter.env_steps - outstanding
        budget = min(allowed // sharing, wanted)
        if self.runtime.slice_seconds is None:
            budget = min(budget, self._stride() * self.config.replay.chunk_rows)
        if budget < self._stride():
            return
        if self.weights is not None and self.weights.updates and self.known_version.get(role, 0) < self.weights.version:
            self._call(role, "set_weights", self.weights.version, self.weights.handle)
            self.known_version[role] = self.weights.version
            self.recorder.weights_lag(time.monotonic() - self.weights.published_at)
        self.granted[role] = budget
        self._call(role, "collect", budget, self.runtime.slice_seconds)

    def _grant_updates(self) -> None:
        """Lets the learner update, up to the next moment at which something is due."""
        if not self._windows():
            return
        done, training = self.limiter.updates, self.config.training
        due = min(
            every - done % every
            for every in (training.log_every, training.publish_every, training.checkpoint_every, training.image_every)
        )
        due = min([due, *(mark - done for mark in (self.config.replay.pretrain, *self.config.keep_at) if mark > done)])
        allowed = self.limiter.updates_owed() if self._collected_all() else self.limiter.updates_allowed()
        count = min(allowed, due)
        if self.runtime.slice_seconds is None:
            count = min(count, INLINE_UPDATES)
        if count > 0:
            self._call(LEARNER, "update", count, self.runtime.slice_seconds)

    def _grant_evaluation(self) -> None:
        if self.evaluations.wanted and EVALUATOR not in self.busy and self.supervisor.alive(EVALUATOR):
            self._call(EVALUATOR, "evaluate", *self.evaluations.next_call())

    def _windows(self) -> int:
        return sum(report.windows for report in self.recorder.replay.values())

    # Calls and their ends

    def _call(self, role: Role, method: str, *args: object) -> None:
        self.busy.add(role)
        self.supervisor.called(role, method)
        self.runtime.call(role, method, *args)

    def _step(self) -> None:
        """Waits for one call to end and takes it in; keeps the display and the watchdog going meanwhile."""
        began = time.monotonic()
        call = self.runtime.wait(timeout=0.5)
        self._count_waits(time.monotonic() - began)
        if call is not None:
            self._ended(call)
        self.supervisor.watch()
        self.progress.update(
            self.recorder.snapshot(
                self.config,
                self.limiter,
                waiting=self._waiting(),
                weights_version=self.weights_version,
                restarts=sum(self.supervisor.restarts.values()),
                last_evaluation=self.evaluations.last_return,
            )
        )

    def _ask(self, role: Role, method: str, *args: object) -> object:
        """A call whose result is needed at once; others that end meanwhile are taken in as usual.

        Taking them in may ask again, so an answer that comes while another is waited for is kept. A learner that dies
        over a question is restored and asked again.

        Raises:
            RoleDiedError: another role died over it.
        """
        question = (role, method)
        self._call(role, method, *args)
        self.asking.append(question)
        while True:
            call = self.answers.pop(question, None) or self.runtime.wait(timeout=0.5)
            self.supervisor.watch()
            if call is None:
                continue
            if (call.role, call.method) != question:
                if (call.role, call.method) in self.asking:
                    self.answers[call.role, call.method] = call
                else:
                    self._ended(call)
            elif call.died is None:
                self.asking.remove(question)
                self.supervisor.ended(role)
                self.busy.discard(role)
                return call.value
            else:
                self.asking.remove(question)
                self._ended(call)
                if role != LEARNER:
                    raise call.died
                if method == "restore":
                    return None  # what brought the learner back has restored it
                self._call(role, method, *args)
                self.asking.append(question)

    def _ended(self, call: Call) -> None:
        role = call.role
        if call.method == "set_weights":
            return  # a collect follows at once, and tells it if the role is gone
        self.busy.discard(role)
        if call.died is not None:
            self._died(call)
            return
        self.supervisor.ended(role)
        match call.method:
            case "collect" | "finish":
                self._collected(role, cast(CollectReport, call.value))
            case "update":
                self._updated(cast(UpdateReport, call.value))
            case "report":
                self.recorder.replayed(role.number, cast(ReplayReport, call.value))
            case "evaluate":
                self.evaluations.done(cast(EvaluationReport, call.value))
                self.supervisor.progressed(EVALUATOR)

    def _died(self, call: Call) -> None:
        """A role's process is gone: what it had been granted is free again, and the supervisor starts it anew."""
        self.granted.pop(call.role, None)
        self.held.pop(call.role, None)
        self.known_version.pop(call.role, None)
        self.recounting = self.recounting or call.role in self.collectors
        assert call.died is not None
        self.supervisor.died(call.role, call.died)
        if call.role == LEARNER:
            self._restore_learner()

    def _restore_learner(self) -> None:
        """Restarts the learner from the newest complete checkpoint; actors go on with the weights they have."""
        self.supervisor.restart_now(LEARNER)
        checkpoint = self.folder.newest_checkpoint()
        updates = 0
        if checkpoint is not None:
            self._ask(LEARNER, "restore", checkpoint.files())
            updates = checkpoint.updates
        stored = self.limiter.env_steps - self.limiter.lost_env_steps
        self.limiter.restore({**self.limiter.state(), "updates": updates}, stored)
        self.progress.message(f"the learner is back at {updates:,} updates")

    def _collected(self, role: Role, report: CollectReport) -> None:
        self.granted.pop(role, None)
        self.held[role] = report.held
        self.limiter.inserted(report.inserted)
        self.recorder.collected(role.number, report)
        if report.inserted:
            self.supervisor.progressed(role)
        self.evaluations.want_if_due(self.weights, self.limiter.env_steps)

    def _updated(self, report: UpdateReport) -> None:
        self.limiter.updated(report.updates)
        self.recorder.updated(report)
        self.supervisor.progressed(LEARNER)
        updates, training = self.limiter.updates, self.config.training
        first = updates == self.config.replay.pretrain
        if updates % training.publish_every == 0 or first:
            self._publish()
        if updates % training.log_every == 0:
            self._log()
        if updates % training.image_every == 0 or first:
            strip = cast("NDArray[np.uint8] | None", self._ask(LEARNER, "reconstruction_strip"))
            if strip is not None:
                self.recorder.board.image("reconstruction", strip, self.limiter.env_steps)
        if updates % training.checkpoint_every == 0 or updates in self.config.keep_at:
            self._checkpoint()

    # What is due now and then

    def _publish(self) -> None:
        """Fetches the learner's weights and offers them under the next version; versions never go back."""
        weights = self._ask(LEARNER, "weights")
        self.weights_version = self.folder.next_weights_version()
        self.weights = Weights(
            self.weights_version, self.limiter.updates, self.runtime.share(weights), time.monotonic()
        )

    def _checkpoint(self) -> None:
        """Writes a checkpoint that a resumed run can go on from, and deletes those no longer wanted."""
        files = cast("dict[str, bytes]", self._ask(LEARNER, "state"))
        state = {
            "updates": self.limiter.updates,
            "env_steps": self.limiter.env_steps,
            "weights_version": self.weights_version,
            "action_size": self.action_size,
            "limiter": self.limiter.state(),
            "replay_random_states": [self._ask(role, "random_state") for role in self.shards],
            "evaluations": self.evaluations.state(),
            "wall_seconds": self.recorder.wall_seconds,
            "best_return": self.recorder.best_return,
        }
        self.folder.write_checkpoint(self.limiter.updates, files, state)
        self.folder.prune_checkpoints(KEPT_CHECKPOINTS, self.config.keep_at)

    def _log(self) -> None:
        self.recorder.line(
            self.limiter.env_steps,
            self.limiter.updates,
            {
                "weights_version": self.weights_version,
                "replay_ratio": self.limiter.updates / max(1, self.limiter.env_steps),
                "role_restarts": sum(self.supervisor.restarts.values()),
                "insert_blocked_seconds": self.limiter.insert_wait_seconds,
                "update_blocked_seconds": self.limiter.update_wait_seconds,
            },
        )

    def _count_waits(self, seconds: float) -> None:
        if LEARNER not in self.busy:
            self.limiter.wait("update", seconds)
        if not any(role in self.busy for role in self.collectors):
            self.limiter.wait("insert", seconds)

    def _waiting(self) -> Waiting:
        if self.limiter.env_steps < self.config.replay.prefill:
            return "prefill"
        if LEARNER not in self.busy:
            return "learner waits for actors"
        if not any(role in self.busy for role in self.collectors):
            return "actors wait for the learner"
        return "nobody waits"

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """First: stop after the calls under way, with a checkpoint. Second: at once."""
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        self.progress.message("stopping: finishing the calls under way, then a checkpoint (again to stop at once)")
