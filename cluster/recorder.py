"""Turns what the roles report into the run's numbers, and these into metrics.jsonl, TensorBoard and the display's."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cluster.progress import Snapshot, Waiting
from cluster.settings import as_record
from cluster.telemetry.cost import costed
from cluster.telemetry.gauges import replay_gauges
from cluster.telemetry.numbers import Numbers
from cluster.telemetry.telemetry import Telemetry
from cluster.tensorboard import TensorBoardLog
from common.config import Config
from common.reports import CollectReport, EvaluationReport, ReplayReport, UpdateReport
from common.run_folder import RunFolder
from common.usage import Usage, usage
from replay_service.limiter import RateLimiter


@dataclass
class Line:
    """What has come since the last line of metrics.jsonl.

    Attributes:
        before: the run's numbers at that line.
        began: when it was written.
        metrics: of the learner, each summed over the updates.
        returns: of the episodes that ended.
        weights_lags: seconds after their publication at which new weights reached a collector.
    """

    before: Numbers
    began: float
    metrics: dict[str, float] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    stored_env_steps: int = 0
    weights_lags: list[float] = field(default_factory=list)


class Recorder:
    """Collects reports, writes a line every `log_every` updates, and makes the numbers public.

    Attributes:
        last_return: of the newest training episode.
        best_return: the highest of all training episodes.
        replay: the newest report of each shard.
        memory: resident bytes of each role, the newest told.
        newest: metrics of the newest updates.
    """

    def __init__(
        self,
        folder: RunFolder,
        telemetry: Telemetry,
        wall_seconds: float,
        best_return: float | None,
        resumed_at: int | None,
    ) -> None:
        self.folder = folder
        self.telemetry = telemetry
        self.numbers = telemetry.numbers
        self.cost = telemetry.cost
        self.board = TensorBoardLog(folder.tensorboard, resumed_at)
        self.began = time.monotonic() - wall_seconds
        self.since = Line(self.numbers.copy(), time.monotonic())
        self.last_return: float | None = None
        self.best_return = best_return
        self.replay: dict[int, ReplayReport] = {}
        self.memory: dict[str, int] = {}
        self.newest: dict[str, float] = {}
        self.recent: deque[tuple[float, int, int]] = deque(maxlen=30)
        self.published = -math.inf

    @property
    def wall_seconds(self) -> float:
        """Seconds of this run, earlier lives included."""
        return time.monotonic() - self.began

    @costed
    def collected(self, actor: int, report: CollectReport) -> None:
        """Takes in one call of a collector."""
        numbers = self.numbers
        numbers.add("env_steps_total", report.inserted)
        numbers.add("episodes_total", len(report.episodes))
        numbers.add("environment_failures_total", report.environment_failures)
        numbers.add("insert_wait_seconds_total", report.insert_wait_seconds)
        self._used("collector", report.usage, actor)
        for episode in report.episodes:
            numbers.set("episode_return", episode.episode_return)
            self.since.returns.append(episode.episode_return)
            self.last_return = episode.episode_return
            best = self.best_return
            self.best_return = episode.episode_return if best is None else max(best, episode.episode_return)

    def left(self, actor: int) -> None:
        """A collector is gone for good."""
        self.memory.pop(f"collector_{actor}", None)
        self.numbers.forget("resident_memory_bytes", "collector", str(actor))

    @costed
    def updated(self, report: UpdateReport) -> None:
        """Takes in one call of the learner."""
        numbers = self.numbers
        numbers.add("updates_total", report.updates)
        numbers.add("batch_wait_seconds_total", report.batch_wait_seconds)
        numbers.add("batch_bytes_total", report.batch_bytes)
        numbers.observe("update_seconds", report.update_seconds / report.updates, report.updates)
        numbers.set("last_update_timestamp_seconds", time.time())
        self._used("learner", report.usage)
        if report.gpu is not None:
            numbers.set("gpu_memory_used_bytes", report.gpu.used_bytes)
            numbers.set("gpu_memory_total_bytes", report.gpu.total_bytes)
            if report.gpu.busy is not None:
                numbers.set("gpu_busy_ratio", report.gpu.busy)
        self.newest = report.metrics
        metrics = self.since.metrics
        for name, mean in report.metrics.items():
            numbers.set("training_metric", mean, name)
            metrics[name] = metrics.get(name, 0.0) + mean * report.updates

    @property
    def anything_new(self) -> bool:
        """Whether anything has happened since the last line."""
        return any((self._new("updates_total"), self._new("env_steps_total"), self.since.stored_env_steps))

    @costed
    def replayed(self, shard: int, report: ReplayReport) -> None:
        """Takes in a shard's report."""
        if shard in self.replay:
            self.since.stored_env_steps += report.inserted_env_steps - self.replay[shard].inserted_env_steps
        self.replay[shard] = report
        source = f"replay {shard}"
        self.numbers.told("chunks_inserted_total", report.inserted_chunks, source)
        self.numbers.told("sequences_sampled_total", report.sampled_sequences, source)
        self._used("replay", report.usage, shard)
        replay_gauges(self.numbers, self.replay.values())

    @costed
    def evaluated(self, rotation_degrees: float, mean: float, report: EvaluationReport) -> None:
        """Takes in an evaluation at one angle."""
        self.numbers.set("evaluation_return", mean, f"{rotation_degrees:g}")
        self._used("evaluator", report.usage)

    def blocked(self, side: Literal["insert", "update"], seconds: float) -> None:
        """The rate limiter held one side back."""
        self.numbers.add(f"{side}_blocked_seconds_total", seconds)

    def weights_lag(self, seconds: float) -> None:
        """New weights reached a collector this long after they were published."""
        self.since.weights_lags.append(seconds)

    @costed
    def line(self, env_steps: int, updates: int, state: dict[str, float]) -> None:
        """Writes what has come since the last line, with `state` beside it, and starts anew."""
        since, seconds = self.since, max(1e-9, time.monotonic() - self.since.began)
        done = self._new("updates_total")
        means = {name: total / done for name, total in since.metrics.items()}
        if since.returns:
            means["episode_return"] = sum(since.returns) / len(since.returns)
        counts = {
            "episodes": len(since.returns),
            "environment_failures": round(self._new("environment_failures_total")),
            "batch_bytes": round(self._new("batch_bytes_total")),
            "replay_rows": sum(report.rows for report in self.replay.values()),
            "replay_env_steps": sum(report.env_steps for report in self.replay.values()),
            "replay_episodes": sum(report.episodes for report in self.replay.values()),
        }
        times = {
            "env_steps_per_second": self._new("env_steps_total") / seconds,
            "updates_per_second": done / seconds,
            "insert_wait_seconds": self._new("insert_wait_seconds_total"),
            "batch_wait_seconds": self._new("batch_wait_seconds_total"),
            "weights_lag_seconds": max(since.weights_lags, default=0.0),
            "update_seconds": self._new_update_seconds() / max(1, done),
        }
        record = {**means, **counts, **state, **times}
        wall = self.wall_seconds
        self.folder.append_metrics({"env_steps": env_steps, "updates": updates, "wall_seconds": wall, **record})
        self._used("coordinator", usage())
        memory = {f"memory/{role}_bytes": float(held) for role, held in self.memory.items()}
        self.board.scalars({**record, **memory}, env_steps)
        self.since = Line(self.numbers.copy(), time.monotonic())

    def changed(self, limiter: RateLimiter, changes: Mapping[str, tuple[Any, Any]]) -> None:
        """Writes down that settings changed while the run went on, old and new value by dotted name."""
        counts = {"env_steps": limiter.env_steps, "updates": limiter.updates, "wall_seconds": self.wall_seconds}
        self.folder.append_metrics({**counts, "config_changes": as_record(changes)})

    @property
    def public_for(self) -> float:
        """Seconds since the numbers were made public."""
        return time.monotonic() - self.published

    @costed
    def publish(self) -> None:
        """Makes the numbers public."""
        self.published = time.monotonic()
        self._used("coordinator", usage())
        self.numbers.set("report_timestamp_seconds", time.time())
        self.telemetry.publish()

    @costed
    def snapshot(
        self,
        config: Config,
        limiter: RateLimiter,
        waiting: Waiting,
        weights_version: int,
        restarts: int,
        last_evaluation: float | None,
    ) -> Snapshot:
        """What the progress display shows now."""
        steps_rate, updates_rate = self._rates(limiter.env_steps, limiter.updates)
        return Snapshot(
            env_steps=limiter.env_steps,
            updates=limiter.updates,
            env_steps_per_second=steps_rate,
            updates_per_second=updates_rate,
            last_return=self.last_return,
            best_return=self.best_return,
            last_evaluation=last_evaluation,
            replay_env_steps=sum(report.env_steps for report in self.replay.values()),
            replay_capacity=config.replay.capacity,
            waiting=waiting,
            weights_version=weights_version,
            elapsed_seconds=self.wall_seconds,
            seconds_left=(config.env_steps - limiter.env_steps) / steps_rate if steps_rate > 0 else None,
            restarts=restarts,
            model_loss=self.newest.get("model_loss"),
            kl=self.newest.get("kl"),
        )

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        self.board.close()

    def _used(self, kind: str, used: Usage, number: int | None = None) -> None:
        self.memory[kind if number is None else f"{kind}_{number}"] = used.resident_bytes
        self.numbers.set("resident_memory_bytes", used.resident_bytes, kind, str(number or 0))
        self.numbers.add("cpu_seconds_total", used.cpu_seconds, kind)
        self.numbers.add("telemetry_cpu_seconds_total", used.telemetry_cpu_seconds)

    def _new(self, counter: str) -> float:
        """By how much a counter has risen since the last line."""
        return self.numbers.counters[counter,] - self.since.before.counters[counter,]

    def _new_update_seconds(self) -> float:
        series = ("update_seconds",)
        return self.numbers.histograms[series].total - self.since.before.histograms[series].total

    def _rates(self, env_steps: int, updates: int) -> tuple[float, float]:
        """Environment steps and updates a second over about the last half minute."""
        now = time.monotonic()
        if not self.recent or now - self.recent[-1][0] >= 1.0:
            self.recent.append((now, env_steps, updates))
        then, steps_then, updates_then = self.recent[0]
        seconds = max(1e-9, now - then)
        return (env_steps - steps_then) / seconds, (updates - updates_then) / seconds
