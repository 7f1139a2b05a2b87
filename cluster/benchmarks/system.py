"""The whole system in the Ray runtime against its learner alone."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
import torch

from cluster.benchmarks.learner import noise_batches
from cluster.benchmarks.measure import machine
from cluster.coordinator import Coordinator
from cluster.progress import Progress, Snapshot
from cluster.run import run
from cluster.runtimes.ray_runtime import RayRuntime, connect, start_actor
from cluster.runtimes.roles import Setting, build_learner, learner_threads
from cluster.telemetry.telemetry import Telemetry
from common.reports import UpdateReport
from common.run_folder import RunFolder
from learner.learner import Learner

READY_FRAMES = "cluster.benchmarks.ready_frames:make"


class Meter(Progress):
    """Watches a run instead of showing it, and stops it when it has been measured long enough."""

    def __init__(self, setting: Setting, seconds: float) -> None:
        super().__init__(setting.config, setting.config.env_steps)
        self.seconds = seconds
        self.warm_updates = setting.config.replay.pretrain + setting.config.training.publish_every
        self.snapshots: list[tuple[float, Snapshot]] = []
        self.coordinator: Coordinator | None = None

    def update(self, snapshot: Snapshot) -> None:
        """Measures from the first publication after the pretraining on, when all roles are at work."""
        if snapshot.updates < self.warm_updates:
            return
        self.snapshots.append((time.monotonic(), snapshot))
        if self.coordinator is not None and self.snapshots[-1][0] - self.snapshots[0][0] >= self.seconds:
            self.coordinator.stop_requested = True

    def message(self, text: str) -> None:
        """Says nothing."""


def measure(setting: Setting, seconds: float) -> dict[str, Any]:
    """Runs the system for a while, and its learner alone, in a process of its own, before and after it."""
    config = setting.config
    before = learner_alone(setting, seconds / 2)
    meter = Meter(setting, seconds)
    with watched(setting, meter, RayRuntime) as (coordinator, _):
        summary = run(coordinator)
        lags = [line["weights_lag_seconds"] for line in coordinator.folder.metrics()]
    (begin, first), (end, last) = meter.snapshots[0], meter.snapshots[-1]
    duration = end - begin
    updates_per_second = (last.updates - first.updates) / duration
    alone = (before + learner_alone(setting, seconds / 2)) / 2
    return {
        "env_steps_per_second": (last.env_steps - first.env_steps) / duration,
        "updates_per_second": updates_per_second,
        "learner_alone_updates_per_second": alone,
        "ratio": updates_per_second / alone,
        "weights_lag_seconds": statistics.median(lags),
        "seconds": duration,
        "task": config.task,
        "preset": config.preset,
        "train_ratio": config.train_ratio,
        "resident_bytes": summary["resident_bytes"],
        "machine": machine(),
    }


_Runtime = TypeVar("_Runtime", bound=RayRuntime)


@contextlib.contextmanager
def watched(
    setting: Setting, meter: Meter, make_runtime: Callable[[Setting], _Runtime]
) -> Iterator[tuple[Coordinator, _Runtime]]:
    """A run in a folder of its own that lasts as long as this is entered, with the meter in the place of a display."""
    with tempfile.TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "run")
        folder.lock()
        folder.create(setting.config)
        setting = dataclasses.replace(setting, replay_folder=folder.replay)
        runtime = make_runtime(setting)
        try:
            coordinator = Coordinator(setting.config, folder, runtime, setting.action_size, meter, Telemetry(folder))
            meter.coordinator = coordinator
            yield coordinator, runtime
        finally:
            runtime.shutdown()
        folder.unlock()


def learner_alone(setting: Setting, seconds: float) -> float:
    """Updates a second of the same learner when nothing else runs."""
    connect("", 1)
    gpus = 1 if setting.device.startswith("cuda") else 0
    learner = start_actor("learner", partial(_learner, setting), num_gpus=gpus)
    ray.get(learner.call.remote("update", 3))
    report: UpdateReport = ray.get(learner.call.remote("update", 10**9, seconds))
    ray.shutdown()
    return report.updates / (report.update_seconds + report.batch_wait_seconds)


def _learner(setting: Setting) -> Learner:
    torch.set_num_threads(learner_threads(setting.config))
    return build_learner(setting, noise_batches(setting.config, setting.action_size))
