"""The whole system with a fleet of simulated actors: where do shards, weights or the coordinator saturate?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import psutil
import ray

from cluster.benchmarks.crowd import CrowdRuntime
from cluster.benchmarks.measure import machine
from cluster.benchmarks.sampler import Sampler, growth
from cluster.benchmarks.system import Meter, learner_alone, watched
from cluster.progress import Snapshot
from cluster.run import run
from cluster.runtimes.roles import Setting
from cluster.weights import Weights

ALONE_SECONDS = 20.0


class Moment(NamedTuple):
    """Where everything stood at one moment, as sums since the run began."""

    at: float
    env_steps: int
    updates: int
    calls: int
    process_cpu: float
    loop_cpu: float
    shard_cpu: float
    insert_wait: float


class ScaleMeter(Meter):
    """Measures from the moment when every actor has done a call and the learner has begun.

    Attributes:
        runtime: whose calls are counted.
        sampler: whose own CPU time is none of the coordinator's.
        first: when the measuring began.
        last: the newest moment.
        published: each version of the weights that collectors were offered.
    """

    def __init__(self, setting: Setting, seconds: float) -> None:
        super().__init__(setting, seconds)
        self.actors = setting.config.actors
        self.runtime: CrowdRuntime | None = None
        self.sampler: Sampler | None = None
        self.first: Moment | None = None
        self.last: Moment | None = None
        self.published: dict[int, Weights] = {}

    def update(self, snapshot: Snapshot) -> None:
        """Notes the moment; asks the run to stop when there have been enough."""
        coordinator = self.coordinator
        assert coordinator is not None
        weights = coordinator.weights
        if weights is not None and weights.updates and weights.version not in self.published:
            self.published[weights.version] = weights._replace(handle=None)
        if (
            snapshot.updates < self.warm_updates
            or len(coordinator.budgets.held) < self.actors
            or coordinator.stop_requested
        ):
            return
        self.last = self._now(snapshot)
        self.first = self.first or self.last
        coordinator.stop_requested = self.last.at - self.first.at >= self.seconds

    def _now(self, snapshot: Snapshot) -> Moment:
        assert self.coordinator is not None
        assert self.runtime is not None
        assert self.sampler is not None
        counters = self.coordinator.telemetry.numbers.counters
        return Moment(
            at=time.monotonic(),
            env_steps=snapshot.env_steps,
            updates=snapshot.updates,
            calls=self.runtime.sent,
            process_cpu=time.process_time() - self.sampler.cpu_seconds,
            loop_cpu=time.thread_time(),
            shard_cpu=counters.get(("cpu_seconds_total", "replay"), 0.0),
            insert_wait=counters["insert_wait_seconds_total",],
        )


def measure(setting: Setting, seconds: float, processes: int, speed: float) -> dict[str, Any]:
    """Runs the system with `actors` collectors in a few processes, and its learner alone before and after it.

    Args:
        setting: of a task with ready-made frames.
        seconds: how long to measure.
        processes: how many the collectors share.
        speed: environment steps a second of one collector; 0: as many as it can.
    """
    config = setting.config
    alone_seconds = min(seconds / 2, ALONE_SECONDS)
    before = learner_alone(setting, alone_seconds)
    meter = ScaleMeter(setting, seconds)
    make_runtime = partial(CrowdRuntime, processes=processes, speed=speed)
    with watched(setting, meter, make_runtime) as (coordinator, runtime):
        meter.runtime = runtime
        meter.sampler = Sampler(every=min(5.0, seconds / 10), figures=partial(_queues, runtime))
        with meter.sampler as sampler:
            summary = run(coordinator)
        lags = [line["weights_lag_seconds"] for line in coordinator.folder.metrics()]
        worst = max(behind(runtime.acted(), meter.published), default=0.0)
        reports = coordinator.recorder.replay.values()
        row_bytes = sum(report.bytes for report in reports) / max(1, sum(report.rows for report in reports))
        weights_bytes = sum(value.nbytes for value in _weights(coordinator.ask_learner("weights")).values())
    alone = (before + learner_alone(setting, alone_seconds)) / 2
    first, last = meter.first, meter.last
    assert first is not None
    assert last is not None
    passed = last.at - first.at
    calls = max(1, last.calls - first.calls)
    env_steps = (last.env_steps - first.env_steps) / passed
    updates = (last.updates - first.updates) / passed
    publications = [weights.published_at for weights in meter.published.values()]
    series = sampler.series(since=sampler.looks[-1].seconds - passed)
    within = [look for look in sampler.looks if look.seconds >= sampler.looks[-1].seconds - passed]
    return {
        "env_steps_per_second": env_steps,
        "updates_per_second": updates,
        "learner_alone_updates_per_second": alone,
        "ratio": updates / alone,
        "weights_lag_seconds": statistics.median(lags) if lags else None,
        "weights_lag_seconds_max": worst,
        "publish_interval_seconds": _mean_difference(publications),
        "weights_published": len(publications),
        "weights_bytes": weights_bytes,
        "simulated_actors": config.actors,
        "envs_per_actor": config.envs_per_actor,
        "processes": processes,
        "steps_per_second_of_an_actor": speed,
        "shards": config.replay.shards,
        "store": config.replay_store,
        "inserted_bytes_per_second": env_steps / config.environment.action_repeat * row_bytes,
        "insert_wait_share": (last.insert_wait - first.insert_wait) / passed / config.actors,
        "coordinator_calls_per_second": calls / passed,
        "coordinator_cpu_share": (last.process_cpu - first.process_cpu) / passed,
        "coordinator_loop_cpu_share": (last.loop_cpu - first.loop_cpu) / passed,
        "coordinator_cpu_seconds_per_call": (last.process_cpu - first.process_cpu) / calls,
        "shards_cpu_share": (last.shard_cpu - first.shard_cpu) / passed,
        "load_average": psutil.getloadavg()[0],
        **{f"{name}_max": max(look.figures[name] for look in within) for name in within[-1].figures},
        "memory": {name: growth(held)._asdict() for name, held in series.items()},
        "samples": {
            "seconds": [look.seconds for look in within],
            **{name: [look.figures[name] for look in within] for name in within[-1].figures},
            "memory": series,
        },
        "seconds": passed,
        "role_restarts": summary["role_restarts"],
        "task": config.task,
        "preset": config.preset,
        "train_ratio": config.train_ratio,
        "resident_bytes": summary["resident_bytes"],
        "machine": machine(),
    }


def behind(acted: Mapping[int, Mapping[int, float]], published: Mapping[int, Weights]) -> Iterator[float]:
    """How long each collector acted with each version after there was a newer one, in seconds; 0 where it did not.

    Args:
        acted: when each collector last acted with each version.
        published: the versions that they were offered.
    """
    for versions in acted.values():
        for version, last in versions.items():
            newer = [weights.published_at for weights in published.values() if weights.version > version]
            if newer:
                yield max(0.0, last - min(newer))


def _queues(runtime: CrowdRuntime) -> dict[str, float]:
    queue = runtime.queue()
    total, free = (
        found.get("object_store_memory", 0.0) for found in (ray.cluster_resources(), ray.available_resources())
    )
    return {
        "coordinator_calls_underway": len(runtime.calls),
        "insert_calls_underway": queue.calls,
        "insert_bytes_waiting": queue.waiting_bytes,
        "object_store_bytes": total - free,
    }


def _weights(value: Any) -> Mapping[str, Any]:
    assert isinstance(value, Mapping)
    return value


def _mean_difference(times: list[float]) -> float | None:
    return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
