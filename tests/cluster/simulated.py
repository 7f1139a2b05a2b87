"""A runtime whose roles take simulated time: whole runs of the coordinator in milliseconds, the same each time."""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from cluster.coordinator import Coordinator
from cluster.offline import OfflineData
from cluster.progress import Progress
from cluster.run import run
from cluster.runtimes.runtime import Call, Role, RoleDiedError
from cluster.telemetry.telemetry import Telemetry
from common.config import Config, EnvironmentConfig, ReplayConfig, TrainingConfig
from common.reports import EvaluationReport, ReplayReport, UpdateReport
from common.run_folder import RunFolder
from common.sequence import Chunk
from replay_service.limiter import first_window_env_steps
from tests.cluster.simulated_roles import EPISODE_ROWS, USAGE, Collector, Disk

START_SECONDS = 2.0
LONGEST_RUN_SECONDS = 10_000_000.0
FOREVER = float("inf")


def config(**changes: Any) -> Config:
    """A small run: 6,000 environment steps, a tenth as many updates."""
    base = Config(
        task="tests.tiny:make",
        env_steps=6000,
        actors=2,
        envs_per_actor=2,
        train_ratio=0.1,
        eval_every=2000,
        eval_episodes=1,
        final_eval_episodes=2,
        environment=EnvironmentConfig(action_repeat=2, time_limit=2 * EPISODE_ROWS, hang_seconds=60.0),
        replay=ReplayConfig(capacity=100_000, chunk_rows=5, prefill=500, pretrain=20),
        training=TrainingConfig(batch_length=5, publish_every=20, checkpoint_every=100, log_every=50, image_every=200),
    )
    return replace(base, **changes)


@dataclass
class Faults:
    """When roles fail: a chance a call of dying half-way, and exact calls that die or hang.

    Attributes:
        chance: of a call to a role of this kind.
        dies: the numbers of the calls, counted from 0 over the whole run, by (kind, method).
        hangs: likewise.
        homeless_seconds: how long one that is started again waits for a node, by kind.
        loses: the numbers of the learner's updates over which another learner is lost.
    """

    seed: int = 0
    chance: dict[str, float] = field(default_factory=dict)
    dies: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    hangs: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    homeless_seconds: dict[str, float] = field(default_factory=dict)
    loses: set[int] = field(default_factory=set)


@dataclass
class Event:
    """A call under way."""

    end: float
    role: Role
    method: str
    args: tuple[Any, ...]
    fails: str = ""
    lost: str = ""


class SimulatedRuntime:
    """Implements `cluster.runtimes.runtime.Runtime`: calls end in the order of simulated time.

    Attributes:
        now: seconds since the beginning.
        called: every call, in order: role and method.
        started: role and incarnation of every start.
        published: the weights versions that collectors were given, in order.
        done: updates that the learner's parameters have behind them.
        room: how many collectors the nodes have room for; None: for any number.
        placed: the collectors that have a place.
        dead: who was slain and not started again yet.
        on_end: called after each call has had its effect.
        evaluation_seconds: what one takes.
    """

    slice_seconds: float | None = 1.0

    def __init__(
        self, config: Config, disk: Disk, env_steps_per_second: float, updates_per_second: float, faults: Faults
    ) -> None:
        self.config = config
        self.disk = disk
        self.steps_speed = env_steps_per_second
        self.updates_speed = updates_per_second
        self.faults = faults
        self.randomness = random.Random(faults.seed)
        self.now = 0.0
        self.under_way: list[Event] = []
        self.collectors: dict[Role, Collector] = {}
        self.called: list[tuple[Role, str]] = []
        self.counts: Counter[tuple[str, str]] = Counter()
        self.started: list[tuple[Role, int]] = []
        self.published: list[int] = []
        self.done = 0
        self.on_end: Callable[[], None] = lambda: None
        self.closed = False
        self.room: int | None = None
        self.placed: set[Role] = set()
        self.place_at: dict[Role, float] = {}
        self.dead: set[Role] = set()
        self.evaluation_seconds = 3.0

    def start(self, role: Role, incarnation: int) -> None:
        self.dead.discard(role)
        if role in dict(self.started):
            self.place_at[role] = self.now + self.faults.homeless_seconds.get(role.kind, 0.0)
        self.started.append((role, incarnation))
        if role.kind == "collector":
            self.collectors[role] = Collector(self.config, self.steps_speed, self.disk, self.randomness)
        if role.kind == "learner":
            self.done = 0

    def is_up(self, role: Role) -> bool:
        if self.now < self.place_at.get(role, 0.0):
            return False
        if role.kind != "collector" or role in self.placed:
            return True
        if self.room is not None and len(self.placed) >= self.room:
            return False
        self.placed.add(role)
        return True

    def call(self, role: Role, method: str, *args: Any) -> None:
        number = self.counts[role.kind, method]
        self.counts[role.kind, method] += 1
        self.called.append((role, method))
        free = max([self.now, *(event.end for event in self.under_way if event.role == role)])
        seconds = self.seconds(role, method, args)
        event = Event(free + seconds, role, method, args)
        if method == "update" and number in self.faults.loses:
            event.lost = "learner 2 of 2 died"
        if number in self.faults.hangs.get((role.kind, method), ()):
            event.end = FOREVER
        elif number in self.faults.dies.get(
            (role.kind, method), ()
        ) or self.randomness.random() < self.faults.chance.get(role.kind, 0.0):
            event.end, event.fails = free + seconds * self.randomness.random(), "killed"
        if role in self.dead:
            event.end, event.fails = free, "was gone already"
        self.under_way.append(event)

    def seconds(self, role: Role, method: str, args: tuple[Any, ...]) -> float:
        match role.kind, method:
            case "collector", "collect":
                return self.collectors[role].seconds(*args)
            case "learner", "update":
                return self.updates(*args) / self.updates_speed
            case "evaluator", "evaluate":
                return self.evaluation_seconds
        return 0.01

    def updates(self, count: int, seconds: float | None) -> int:
        return count if seconds is None else min(count, max(1, int(seconds * self.updates_speed)))

    def wait(self, timeout: float) -> Call | None:
        assert self.now < LONGEST_RUN_SECONDS, f"no end in sight: {self.under_way}"
        event = min(self.under_way, key=lambda event: event.end, default=None)
        if event is None or event.end > self.now + timeout:
            self.now += timeout
            return None
        self.under_way.remove(event)
        self.now = event.end
        if event.fails:
            self.lose(event)
            return Call(event.role, event.method, None, RoleDiedError(event.fails))
        value = self.effect(event)
        self.on_end()
        return Call(event.role, event.method, value)

    def lose(self, event: Event) -> None:
        """The process is gone: so is every call to it."""
        self.placed.discard(event.role)
        for other in self.under_way:
            if other.role == event.role:
                other.end, other.fails = self.now, event.fails

    def effect(self, event: Event) -> object:
        collector = self.collectors.get(event.role)
        match event.role.kind, event.method:
            case "collector", "collect":
                assert collector is not None
                return collector.collect(*event.args)
            case "collector", "finish":
                assert collector is not None
                return collector.finish()
            case "collector", "set_weights":
                assert collector is not None
                collector.version = event.args[0]
                self.published.append(event.args[0])
            case "learner", "update":
                empty = self.disk.env_steps < first_window_env_steps(self.config)
                assert not empty or self.disk.life != "first", "nothing to draw from yet"
                done = 0 if empty else self.updates(*event.args)
                self.done += done
                metrics = {"model_loss": 1.0, "kl": 3.0} if done else {}
                return UpdateReport(done, metrics, 0.0, done / self.updates_speed, USAGE, lost=event.lost)
            case "learner", "weights":
                return {"updates": np.float32(self.done)}
            case "learner", "state":
                return {"parameters.safetensors": str(self.done).encode()}
            case "learner", "restore":
                self.done = int(event.args[0]["parameters.safetensors"])
            case "evaluator", "evaluate":
                version, _, episodes, rotation, *_ = event.args
                return EvaluationReport(version, [float(version)] * episodes, rotation, [], None, 3.0, USAGE)
            case "replay", "report":
                shards = self.config.replay.shards
                steps = self.disk.env_steps // shards + (self.disk.env_steps % shards if event.role.number == 0 else 0)
                windows = max(0, steps - first_window_env_steps(self.config) // shards + 1)
                return ReplayReport(steps // 2, steps, steps, 1, 1, windows, 0, 1, 0, 0, USAGE, self.disk.life)
        return None

    def insert(self, shard: int, chunks: Sequence[Chunk]) -> None:
        self.disk.env_steps += sum(chunk.rows.env_steps(self.config.environment.action_repeat) for chunk in chunks)

    def share(self, value: object) -> object:
        return value

    def kill(self, role: Role) -> None:
        self.placed.discard(role)
        for event in self.under_way:
            if event.role == role:
                event.end, event.fails = self.now, "hung"

    def slay(self, role: Role) -> None:
        """Ends a process at any moment: of one that idles the next call will tell."""
        self.dead.add(role)
        self.kill(role)

    def shutdown(self) -> None:
        self.closed = True


@dataclass
class Run:
    """A finished simulation."""

    summary: dict[str, Any]
    runtime: SimulatedRuntime
    coordinator: Coordinator
    folder: RunFolder
    text: str


@contextmanager
def simulated_time(runtime: SimulatedRuntime) -> Iterator[None]:
    """The coordinator, the supervisor and the recorder read the runtime's clock; nothing is flushed or filmed."""
    clock = SimpleNamespace(monotonic=lambda: 1000.0 + runtime.now, time=time.time)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("coordinator", "supervision", "recorder", "stopping"):
            patch.setattr(f"cluster.{module}.time", clock)
        patch.setattr("os.fsync", lambda _: None)
        yield


def simulate(
    config: Config,
    path: Path,
    *,
    env_steps_per_second: float = 400.0,
    updates_per_second: float = 30.0,
    faults: Faults | None = None,
    disk: Disk | None = None,
    watch: Callable[[Coordinator, SimulatedRuntime], None] | None = None,
    offline: OfflineData | None = None,
    room: int | None = None,
    slice_seconds: float | None = 1.0,
    evaluation_seconds: float = 3.0,
) -> Run:
    """Begins or resumes the run in `path` and lets it end; `watch` is called whenever a call has had its effect."""
    runtime = SimulatedRuntime(config, disk or Disk(), env_steps_per_second, updates_per_second, faults or Faults())
    runtime.room, runtime.slice_seconds = room, slice_seconds
    runtime.evaluation_seconds = evaluation_seconds
    folder = RunFolder(path)
    console = Console(file=io.StringIO(), width=200)
    with simulated_time(runtime):
        folder.lock()
        folder.create(config)
        progress = Progress(config, config.env_steps, console)
        coordinator = Coordinator(config, folder, runtime, 1, progress, Telemetry(folder), offline)
        if watch is not None:
            runtime.on_end = lambda: watch(coordinator, runtime)
        try:
            summary = run(coordinator)
        finally:
            folder.unlock()
    assert isinstance(console.file, io.StringIO)
    return Run(summary, runtime, coordinator, folder, console.file.getvalue())
