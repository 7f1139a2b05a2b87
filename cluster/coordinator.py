"""The coordinator: an event loop that grants work, moves weights and writes the run folder.

Collectors and learner work in calls of about a second. Before each call the rate limiter says how much it may do, so
that a side which is ahead is simply not called: back-pressure without queues. Weights travel with a collector's next
call once there are newer ones.
"""

from __future__ import annotations

import signal
import time
from collections import deque
from types import FrameType
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from actors.video import side_by_side, write_video
from cluster.progress import Progress, Snapshot, Waiting
from cluster.recorder import Recorder
from cluster.runtimes.runtime import Call, Role, Runtime
from cluster.supervision import Supervisor
from common.config import Config
from common.reports import CollectReport, EvaluationReport, ReplayReport, UpdateReport
from common.run_folder import RunFolder
from common.seeding import derive_seed
from replay_service.limiter import RateLimiter

LEARNER = Role("learner")
EVALUATOR = Role("evaluator")
REPLAY_REPORT_SECONDS = 2.0
INLINE_UPDATES = 10
KEPT_CHECKPOINTS = 3
VIDEO_EPISODES = 4


class Weights(NamedTuple):
    """Published weights: their version, the updates behind them, and a handle that roles can read."""

    version: int
    updates: int
    handle: object
    published_at: float


class Evaluation(NamedTuple):
    """An evaluation that is wanted: with which weights (None: random actions), how many episodes, at which angle."""

    weights: Weights | None
    env_steps: int
    updates: int
    episodes: int
    rotation: float


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
        self.evaluations: deque[Evaluation] = deque()
        self.next_evaluation = config.eval_every
        self.last_evaluation: float | None = None
        self.random_return: float | None = None
        self.first_return: float | None = None
        self.replay_reported = 0.0
        self.stop_requested = False
        self.recorder: Recorder

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
            self.next_evaluation = state["next_evaluation"]
            self.random_return, self.first_return = state["random_return"], state["first_return"]
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
        if checkpoint is None:
            for weights in (None, self.weights):
                self._want_evaluations(weights, self.config.final_eval_episodes)
        for role in self.collectors:
            self.supervisor.start(role)

    def _finished(self) -> bool:
        if self.stop_requested:
            return True
        return self._collected_all() and not self.limiter.updates_owed() and not self.busy and not self.evaluations

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
        finished = not self.stop_requested
        self._publish()
        if finished:
            self._want_evaluations(self.weights, self.config.final_eval_episodes)
            while self.evaluations or self.busy:
                self._grant_evaluation()
                self._step()
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
            "random_return": self.random_return,
            "first_return": self.first_return,
            "last_return": self.last_evaluation,
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

    def _stride(self) -> int:
        return self.config.envs_per_actor * self.config.environment.action_repeat

    def _grant_steps(self, role: Role, sharing: int) -> None:
        """Lets a collector step, up to its share of what may still be inserted and of what the run still wants."""
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
        allowed = self.limiter.updates_owed() if self._collected_all() else self.limiter.updates_allowed()
        count = min(allowed, due)
        if self.runtime.slice_seconds is None:
            count = min(count, INLINE_UPDATES)
        if count > 0:
            self._call(LEARNER, "update", count, self.runtime.slice_seconds)

    def _grant_evaluation(self) -> None:
        if self.evaluations and EVALUATOR not in self.busy and self.supervisor.alive(EVALUATOR):
            wanted = self.evaluations[0]
            version, handle = (wanted.weights.version, wanted.weights.handle) if wanted.weights else (0, None)
            seed = derive_seed(self.config.seed, "evaluation", wanted.env_steps)
            record = min(wanted.episodes, VIDEO_EPISODES)
            self._call(EVALUATOR, "evaluate", version, handle, wanted.episodes, wanted.rotation, False, seed, record)

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
        self.progress.update(self._snapshot())

    def _ask(self, role: Role, method: str, *args: object) -> object:
        """A call whose result is needed at once; others that end meanwhile are taken in as usual.

        A learner that dies over it is restored and asked again.

        Raises:
            RoleDiedError: another role died over it.
        """
        self._call(role, method, *args)
        while True:
            call = self.runtime.wait(timeout=0.5)
            self.supervisor.watch()
            if call is None:
                continue
            if (call.role, call.method) != (role, method):
                self._ended(call)
            elif call.died is None:
                self.supervisor.ended(role)
                self.busy.discard(role)
                return call.value
            else:
                self._ended(call)
                if role != LEARNER:
                    raise call.died
                if method == "restore":
                    return None  # what brought the learner back has restored it
                self._call(role, method, *args)

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
                self._evaluated(self.evaluations.popleft(), cast(EvaluationReport, call.value))

    def _died(self, call: Call) -> None:
        """A role's process is gone: what it had been granted is free again, and the supervisor starts it anew."""
        self.granted.pop(call.role, None)
        self.held.pop(call.role, None)
        self.known_version.pop(call.role, None)
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
        trained = self.weights is not None and self.weights.updates > 0
        if self.config.eval_every and self.limiter.env_steps >= self.next_evaluation and trained:
            while self.next_evaluation <= self.limiter.env_steps:
                self.next_evaluation += self.config.eval_every
            if self.limiter.env_steps < self.config.env_steps - self.config.eval_every // 2:
                self._want_evaluations(self.weights, self.config.eval_episodes)

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
        if updates % training.checkpoint_every == 0:
            self._checkpoint()

    def _evaluated(self, wanted: Evaluation, report: EvaluationReport) -> None:
        self.supervisor.progressed(EVALUATOR)
        mean = float(np.mean(report.returns))
        self.folder.append_evaluation(
            {
                "env_steps": wanted.env_steps,
                "updates": wanted.updates,
                "weights_version": report.weights_version,
                "returns": report.returns,
                "mean": mean,
                "rotation_degrees": report.rotation_degrees,
                "wall_seconds": self.recorder.wall_seconds,
            }
        )
        angle = f" at ±{report.rotation_degrees:g}°" if report.rotation_degrees else ""
        who = "random actions" if wanted.weights is None else f"weights {report.weights_version}"
        self.progress.message(
            f"evaluation{angle}: mean return {mean:.1f} over {len(report.returns)} episodes ({who}, "
            f"{wanted.env_steps:,} environment steps)"
        )
        name = "random" if wanted.weights is None else f"{wanted.env_steps:09d}"
        name += f"_rotation{report.rotation_degrees:g}" if report.rotation_degrees else ""
        film = side_by_side(report.frames)
        write_video(self.folder.videos / f"{name}.mp4", film, fps=self._fps())
        if wanted.weights is not None:
            suffix = f"_rotation{report.rotation_degrees:g}" if report.rotation_degrees else ""
            self.recorder.board.scalars({f"evaluation{suffix}": mean}, wanted.env_steps)
            self.recorder.board.video(f"evaluation{suffix}", film, wanted.env_steps, fps=self._fps())
        if report.rotation_degrees == self.config.eval_rotation[0]:
            if wanted.weights is None:
                self.random_return = mean
            else:
                self.last_evaluation = mean
                if wanted.updates == 0:
                    self.first_return = mean

    def _fps(self) -> float:
        return 50 / self.config.environment.action_repeat

    # What is due now and then

    def _want_evaluations(self, weights: Weights | None, episodes: int) -> None:
        updates = weights.updates if weights else 0
        for rotation in self.config.eval_rotation:
            self.evaluations.append(Evaluation(weights, self.limiter.env_steps, updates, episodes, rotation))

    def _publish(self) -> None:
        """Fetches the learner's weights and offers them under the next version; versions never go back."""
        weights = self._ask(LEARNER, "weights")
        self.weights_version += 1
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
            "next_evaluation": self.next_evaluation,
            "wall_seconds": self.recorder.wall_seconds,
            "best_return": self.recorder.best_return,
            "random_return": self.random_return,
            "first_return": self.first_return,
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

    def _snapshot(self) -> Snapshot:
        limiter = self.limiter
        steps_rate, updates_rate = self.recorder.rates(limiter.env_steps, limiter.updates)
        if limiter.env_steps < self.config.replay.prefill:
            waiting: Waiting = "prefill"
        elif LEARNER not in self.busy:
            waiting = "learner waits for actors"
        elif not any(role in self.busy for role in self.collectors):
            waiting = "actors wait for the learner"
        else:
            waiting = "nobody waits"
        left = (self.config.env_steps - limiter.env_steps) / steps_rate if steps_rate > 0 else None
        held = sum(report.env_steps for report in self.recorder.replay.values())
        return Snapshot(
            env_steps=limiter.env_steps,
            updates=limiter.updates,
            env_steps_per_second=steps_rate,
            updates_per_second=updates_rate,
            last_return=self.recorder.last_return,
            best_return=self.recorder.best_return,
            last_evaluation=self.last_evaluation,
            replay_env_steps=held,
            replay_capacity=self.config.replay.capacity,
            waiting=waiting,
            weights_version=self.weights_version,
            elapsed_seconds=self.recorder.wall_seconds,
            seconds_left=left,
            restarts=sum(self.supervisor.restarts.values()),
            model_loss=self.recorder.newest.get("model_loss"),
            kl=self.recorder.newest.get("kl"),
        )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """First: stop after the calls under way, with a checkpoint. Second: at once."""
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        self.progress.message("stopping: finishing the calls under way, then a checkpoint (again to stop at once)")
