"""The replay service against its transport: a Ray actor that hands over a ready batch of the same size."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import numpy as np
import ray
import torch
from numpy.typing import NDArray

from actors.environment import make_environment
from actors.rendering import configure
from cluster.benchmarks import window_index
from cluster.benchmarks.measure import interleaved, machine, rate
from cluster.runtimes.assembly import DeviceAssembly
from cluster.runtimes.ray_batches import PREFETCH, RayBatches
from cluster.runtimes.ray_runtime import batches, connect, start_actor, start_shard
from cluster.runtimes.ray_sink import RaySink
from cluster.runtimes.roles import Setting
from common.reports import ReplayReport
from common.sequence import ROW_FIELDS, Chunk, ChunkKey, Rows
from learner.feed import Feed

FRAMES = 250
ROWS_HELD = 20_000
ROWS_INSERTED = 10_000
BATCHES = 40
EPISODE_ROWS = 1000
STREAMS = 16


class ReadyBatch:
    """Hands over the same ready batch again and again."""

    def __init__(self, batch: Rows) -> None:
        self.batch = Rows(*(getattr(batch, name).copy() for name in ROW_FIELDS))

    def draw(self) -> Rows:
        """The batch."""
        return self.batch


def ready_batches(actor: Any) -> Iterator[Rows]:
    """Batches from a `ReadyBatch`, as many under way as the learner keeps."""
    underway = [actor.call.remote("draw") for _ in range(PREFETCH)]
    while True:
        yield ray.get(underway.pop(0))
        underway.append(actor.call.remote("draw"))


def frames_of(setting: Setting) -> NDArray[np.uint8]:
    """What the task looks like under random actions, uint8 (FRAMES, 64, 64, 3): how far it compresses matters."""
    if setting.gl != "auto":
        configure(setting.gl)
    random = np.random.default_rng(0)
    environment = make_environment(setting.config.task, setting.config.environment, 0)
    frames = [environment.reset().observation["image"]]
    while len(frames) < FRAMES:
        action = random.uniform(-1, 1, environment.action_spec().shape)
        frames.append(environment.step(action).observation["image"])
    environment.close()
    return np.stack(frames)


def chunks(frames: NDArray[np.uint8], action_size: int, rows: int) -> Iterator[Chunk]:
    """Chunks of `STREAMS` environments in turn, in episodes of about 1,000 rows."""
    ones = np.ones(rows, np.float32)
    action = np.random.default_rng(0).uniform(-1, 1, (rows, action_size)).astype(np.float32)
    start = 0
    for episode in itertools.count():
        for index in range(EPISODE_ROWS // rows):
            first = np.zeros(rows, np.bool_)
            first[0] = index == 0
            for stream in range(STREAMS):
                start = (start + rows) % (len(frames) - rows + 1)
                key = ChunkKey(0, 0, stream, episode, index)
                image = frames[start : start + rows]
                yield Chunk(key, Rows(image, action, ones, ones, first), index == EPISODE_ROWS // rows - 1)


class Bench:
    """One shard process with the configured store, filled; what can be measured with it, by name.

    Attributes:
        measures: `service`, `transport`, `memcpy` and, where the store's file is read here, `direct`: batches a second.
            `on_device`, where the learner's device keeps the rows: batches a second once nearly all are there.
        `insert`: rows a second, into a shard at its capacity.
        filled: rows a second while the shard was filled to its capacity.
        batch_bytes: size of one batch.
    """

    def __init__(self, setting: Setting, frames: NDArray[np.uint8]) -> None:
        capacity = ROWS_HELD * setting.config.environment.action_repeat
        config = dataclasses.replace(
            setting.config, replay=dataclasses.replace(setting.config.replay, capacity=capacity, shards=1)
        )
        setting = dataclasses.replace(setting, config=config)
        connect("", 3)
        self.shard = start_shard(setting, 0)
        self.sink = RaySink(self.shard, config.packs_images, config.redis_timeout)
        self.chunk_rows = config.replay.chunk_rows
        self.source = chunks(frames, setting.action_size, self.chunk_rows)
        self.report()  # it is up
        self.filled = self.insert(ROWS_HELD)
        through_service = dataclasses.replace(config.replay, reading="service")
        service = self._batches(setting, replay=through_service, replay_on_device="off")
        sample = cast("Rows", next(service))
        memory, other_memory = (Rows(*(getattr(sample, name).copy() for name in ROW_FIELDS)) for _ in range(2))
        ready = ready_batches(start_actor("replay", partial(ReadyBatch, sample)))
        self.batch_bytes = sum(getattr(sample, name).nbytes for name in ROW_FIELDS)
        self.measures: dict[str, Callable[[], float]] = {
            "service": lambda: rate(lambda: next(service), BATCHES),
            # As the service does: what arrives in shared memory is copied once, into memory that is used again.
            "transport": lambda: rate(lambda: _copy(next(ready), memory), BATCHES),
            "memcpy": lambda: rate(lambda: _copy(other_memory, memory), BATCHES),
        }
        direct = self._batches(setting, replay_on_device="off")
        next(direct)
        if "draw" in direct.methods:
            self.measures["direct"] = lambda: rate(lambda: next(direct), BATCHES)
        resident = self._batches(setting, replay=through_service)  # LMDB opens a file once a process
        self.supplies = [service, direct, resident]
        if isinstance(resident.assembly, DeviceAssembly):
            feed = Feed(resident, torch.device(setting.device))
            self.measures["on_device"] = lambda: _gathered(feed)
        for warm_up in self.measures.values():
            warm_up()
        self.measures["insert"] = lambda: self.insert(ROWS_INSERTED)

    def insert(self, rows: int) -> float:
        """Acknowledged rows a second, encoding and compressing included."""
        began = time.perf_counter()
        count = rows // self.chunk_rows
        for _ in range(count):
            self.sink.insert(next(self.source))
        self.sink.flush()
        return count * self.chunk_rows / (time.perf_counter() - began)

    def _batches(self, setting: Setting, **changes: Any) -> RayBatches:
        config = dataclasses.replace(setting.config, **changes)
        return batches(dataclasses.replace(setting, config=config), [self.shard])

    def close(self) -> None:
        """Ends it, and Ray."""
        for supply in self.supplies:
            supply.close()
        ray.shutdown()

    def report(self) -> ReplayReport:
        """What the shard holds."""
        return cast("ReplayReport", ray.get(self.shard.call.remote("report")))


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    """Sampled and inserted volume through one shard process with the configured store."""
    config = setting.config
    bench = Bench(setting, frames_of(setting))
    medians = interleaved(bench.measures, rounds)
    report, size = bench.report(), bench.batch_bytes
    bench.close()
    return {
        "batches_per_second": medians["service"],
        "bytes_per_second": medians["service"] * size,
        "transport_bytes_per_second": medians["transport"] * size,
        "memcpy_bytes_per_second": medians["memcpy"] * size,
        "ratio": medians["service"] / medians["transport"],
        "direct_bytes_per_second": medians["direct"] * size if "direct" in medians else None,
        "on_device_batches_per_second": medians.get("on_device"),
        "insert_rows_per_second": medians["insert"],
        "filling_rows_per_second": bench.filled,
        "store": config.replay_store,
        "batch_bytes": size,
        "batch_size": config.sequences,
        "batch_length": config.training.batch_length,
        "chunk_rows": config.replay.chunk_rows,
        "stored_bytes_per_row": report.bytes / report.rows,
        "sync": config.replay.sync,
        **window_index.measure(rounds, config.replay),
        "resident_bytes": {"replay_0": report.usage.resident_bytes},
        "machine": machine(),
    }


def _gathered(feed: Feed) -> float:
    """Batches a second that lie on the device."""
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(feed)
    if feed.device.type == "cuda":
        torch.cuda.synchronize(feed.device)
    return BATCHES / (time.perf_counter() - began)


def _copy(rows: Rows, memory: Rows) -> None:
    for name in ROW_FIELDS:
        np.copyto(getattr(memory, name), getattr(rows, name))
