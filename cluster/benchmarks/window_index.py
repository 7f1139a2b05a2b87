"""The index of windows: what drawing a batch costs among ten thousand rows, and among ten million."""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from cluster.benchmarks.measure import interleaved
from common.config import ReplayConfig
from common.sequence import ChunkKey
from replay_service.samplers import SAMPLERS
from replay_service.windows import WindowIndex

FEW_ROWS = 10_000
MANY_ROWS = 10_000_000
CHUNK_ROWS = 16
EPISODE_CHUNKS = 62
STREAMS = 4
BATCH_SIZE = 50
LENGTH = 50
DRAWS = 200


def measure(rounds: int, config: ReplayConfig) -> dict[str, float]:
    """Seconds that drawing 50 windows of 50 rows takes, with few rows and with many: medians of interleaved rounds.

    Args:
        rounds: of `DRAWS` batches from each.
        config: how windows are drawn.
    """
    few, many = filled(config, FEW_ROWS), filled(config, MANY_ROWS)
    medians = interleaved({"few": partial(seconds_per_batch, few), "many": partial(seconds_per_batch, many)}, rounds)
    return {
        "index_seconds_per_batch_10k_rows": medians["few"],
        "index_seconds_per_batch_10m_rows": medians["many"],
        "index_ratio": medians["many"] / medians["few"],
    }


def filled(config: ReplayConfig, rows: int) -> WindowIndex:
    """An index of episodes of about 1,000 rows from several environments in step; there are no rows behind it."""
    index = WindowIndex(LENGTH, SAMPLERS[config.sampling](config))
    for sequence in range(rows // CHUNK_ROWS):
        turn, stream = divmod(sequence, STREAMS)
        episode, number = divmod(turn, EPISODE_CHUNKS)
        key = ChunkKey(0, 0, stream, episode, number)
        index.append(sequence, key, CHUNK_ROWS, is_last=number == EPISODE_CHUNKS - 1)
    return index


def seconds_per_batch(index: WindowIndex) -> float:
    """What drawing a batch takes."""
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    for _ in range(DRAWS):
        index.draw(BATCH_SIZE, rng)
    return (time.perf_counter() - began) / DRAWS
