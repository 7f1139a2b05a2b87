"""The replay service against its transport: a Ray actor that hands over a ready batch of the same size."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import ray

from cluster.benchmarks.measure import interleaved, machine, rate
from cluster.runtimes.ray_runtime import ACTOR_CLASSES, PREFETCH, RayBatches, RaySink, ReplayShard, connect
from cluster.runtimes.roles import Setting
from common.sequence import ROW_FIELDS, Chunk, ChunkKey, Rows

ROWS_HELD = 20_000
ROWS_INSERTED = 5_000
BATCHES = 40
EPISODE_ROWS = 1000
STREAMS = 4


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


def chunks(setting: Setting, rows: int) -> Iterator[Chunk]:
    """Chunks of `STREAMS` environments in turn, episodes of 1,000 rows, frames of noise: the hardest to compress."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (rows, 64, 64, 3), np.uint8)
    ones = np.ones(rows, np.float32)
    action = np.zeros((rows, setting.action_size), np.float32)
    for episode in itertools.count():
        for index in range(EPISODE_ROWS // rows):
            first = np.zeros(rows, np.bool_)
            first[0] = index == 0
            for stream in range(STREAMS):
                key = ChunkKey(0, 0, stream, episode, index)
                yield Chunk(key, Rows(frames, action, ones, ones, first), index == EPISODE_ROWS // rows - 1)


def measure(setting: Setting, rounds: int) -> dict[str, Any]:
    """Sampled and inserted volume through one shard process with the configured store."""
    config = setting.config
    connect("", 3)
    shard = ACTOR_CLASSES["replay"].remote(partial(ReplayShard, setting, 0))
    sink = RaySink(shard)
    source = chunks(setting, config.replay.chunk_rows)
    for _ in range(ROWS_HELD // config.replay.chunk_rows):
        sink.insert(next(source))
    sink.flush()
    batches = RayBatches([shard], config.training.batch_size, seed=0)
    sample = next(batches)
    ready = ready_batches(ACTOR_CLASSES["replay"].remote(partial(ReadyBatch, sample)))
    memory = Rows.empty(sample.reward.shape, setting.action_size)
    source_memory = Rows(*(getattr(sample, name).copy() for name in ROW_FIELDS))

    def take(supply: Iterator[Rows]) -> float:
        # As the learner does: what arrives in shared memory is copied once, into memory that is used again.
        return rate(lambda: _copy(next(supply), memory), BATCHES)

    measures: dict[str, Callable[[], float]] = {
        "service": partial(take, batches),
        "transport": partial(take, ready),
        "memcpy": lambda: rate(lambda: _copy(source_memory, memory), BATCHES),
        "insert": lambda: _insert(sink, source, config.replay.chunk_rows),
    }
    for warm in ("service", "transport"):
        measures[warm]()
    medians = interleaved(measures, rounds)
    report = ray.get(shard.call.remote("report"))
    ray.shutdown()
    size = sum(getattr(sample, name).nbytes for name in ROW_FIELDS)
    return {
        "batches_per_second": medians["service"],
        "bytes_per_second": medians["service"] * size,
        "transport_bytes_per_second": medians["transport"] * size,
        "memcpy_bytes_per_second": medians["memcpy"] * size,
        "ratio": medians["service"] / medians["transport"],
        "insert_rows_per_second": medians["insert"],
        "store": config.replay_store,
        "batch_bytes": size,
        "batch_size": config.training.batch_size,
        "batch_length": config.training.batch_length,
        "chunk_rows": config.replay.chunk_rows,
        "sync": config.replay.sync,
        "resident_bytes": {"replay_0": report.resident_bytes},
        "machine": machine(),
    }


def _copy(rows: Rows, memory: Rows) -> None:
    for name in ROW_FIELDS:
        np.copyto(getattr(memory, name), getattr(rows, name))


def _insert(sink: RaySink, source: Iterator[Chunk], chunk_rows: int) -> float:
    """Acknowledged rows a second, a chunk of each of several environments under way at a time."""
    began = time.perf_counter()
    count = ROWS_INSERTED // chunk_rows
    for _ in range(count):
        sink.insert(next(source))
    sink.flush()
    return count * chunk_rows / (time.perf_counter() - began)
