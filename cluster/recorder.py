"""Turns what the roles report into the run's records: metrics.jsonl, TensorBoard and the progress display's numbers."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from cluster.progress import Snapshot, Waiting
from cluster.tensorboard import TensorBoardLog
from common.config import Config
from common.memory import resident_bytes
from common.reports import CollectReport, ReplayReport, UpdateReport
from common.run_folder import RunFolder
from replay_service.limiter import RateLimiter


@dataclass
class Totals:
    """Sums since the last line of metrics.jsonl."""

    updates: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    env_steps: int = 0
    environment_failures: int = 0
    insert_wait_seconds: float = 0.0
    batch_wait_seconds: float = 0.0
    update_seconds: float = 0.0
    weights_lags: list[float] = field(default_factory=list)


class Recorder:
    """Collects reports and writes a line every `log_every` updates.

    Attributes:
        last_return: of the newest training episode.
        best_return: the highest of all training episodes.
        replay: the newest report of each shard.
        memory: resident bytes of each role, the newest told.
        newest: metrics of the newest updates.
    """

    def __init__(
        self, folder: RunFolder, wall_seconds: float, best_return: float | None, resumed_at: int | None
    ) -> None:
        self.folder = folder
        self.board = TensorBoardLog(folder.tensorboard, resumed_at)
        self.began = time.monotonic() - wall_seconds
        self.totals = Totals()
        self.line_began = time.monotonic()
        self.last_return: float | None = None
        self.best_return = best_return
        self.replay: dict[int, ReplayReport] = {}
        self.memory: dict[str, int] = {}
        self.newest: dict[str, float] = {}
        self.recent: deque[tuple[float, int, int]] = deque(maxlen=30)

    @property
    def wall_seconds(self) -> float:
        """Seconds of this run, earlier lives included."""
        return time.monotonic() - self.began

    def collected(self, actor: int, report: CollectReport) -> None:
        """Takes in one call of a collector."""
        self.totals.env_steps += report.inserted
        self.totals.environment_failures += report.environment_failures
        self.totals.insert_wait_seconds += report.insert_wait_seconds
        self.memory[f"collector_{actor}"] = report.resident_bytes
        for episode in report.episodes:
            self.totals.returns.append(episode.episode_return)
            self.last_return = episode.episode_return
            best = self.best_return
            self.best_return = episode.episode_return if best is None else max(best, episode.episode_return)

    def updated(self, report: UpdateReport) -> None:
        """Takes in one call of the learner."""
        totals = self.totals
        totals.updates += report.updates
        totals.batch_wait_seconds += report.batch_wait_seconds
        totals.update_seconds += report.update_seconds
        self.memory["learner"] = report.resident_bytes
        self.newest = report.metrics
        for name, mean in report.metrics.items():
            totals.metrics[name] = totals.metrics.get(name, 0.0) + mean * report.updates

    def replayed(self, shard: int, report: ReplayReport) -> None:
        """Takes in a shard's report."""
        self.replay[shard] = report
        self.memory[f"replay_{shard}"] = report.resident_bytes

    def weights_lag(self, seconds: float) -> None:
        """New weights reached a collector this long after they were published."""
        self.totals.weights_lags.append(seconds)

    def line(self, env_steps: int, updates: int, state: dict[str, float]) -> None:
        """Writes what has come since the last line, with `state` beside it, and starts anew."""
        totals, seconds = self.totals, max(1e-9, time.monotonic() - self.line_began)
        means = {name: total / totals.updates for name, total in totals.metrics.items()}
        if totals.returns:
            means["episode_return"] = sum(totals.returns) / len(totals.returns)
        counts = {
            "episodes": len(totals.returns),
            "environment_failures": totals.environment_failures,
            "replay_rows": sum(report.rows for report in self.replay.values()),
            "replay_env_steps": sum(report.env_steps for report in self.replay.values()),
            "replay_episodes": sum(report.episodes for report in self.replay.values()),
        }
        times = {
            "env_steps_per_second": totals.env_steps / seconds,
            "updates_per_second": totals.updates / seconds,
            "insert_wait_seconds": totals.insert_wait_seconds,
            "batch_wait_seconds": totals.batch_wait_seconds,
            "weights_lag_seconds": max(totals.weights_lags, default=0.0),
            "update_seconds": totals.update_seconds / max(1, totals.updates),
        }
        record = {**means, **counts, **state, **times}
        wall = self.wall_seconds
        self.folder.append_metrics({"env_steps": env_steps, "updates": updates, "wall_seconds": wall, **record})
        self.memory["coordinator"] = resident_bytes()
        memory = {f"memory/{role}_bytes": float(held) for role, held in self.memory.items()}
        self.board.scalars({**record, **memory}, env_steps)
        self.totals, self.line_began = Totals(), time.monotonic()

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

    def _rates(self, env_steps: int, updates: int) -> tuple[float, float]:
        """Environment steps and updates a second over about the last half minute."""
        now = time.monotonic()
        if not self.recent or now - self.recent[-1][0] >= 1.0:
            self.recent.append((now, env_steps, updates))
        then, steps_then, updates_then = self.recent[0]
        seconds = max(1e-9, now - then)
        return (env_steps - steps_then) / seconds, (updates - updates_then) / seconds

    def close(self) -> None:
        """Flushes TensorBoard's file."""
        self.board.close()
