"""The learner's update against the plain one of the same model: step by step, uncompiled, in float32."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cluster.benchmarks.measure import interleaved, machine, rate
from cluster.benchmarks.memory import peak_bytes
from cluster.benchmarks.waits import waits
from cluster.runtimes.roles import learner_threads
from common.config import Config
from common.sequence import Rows
from learner.capture import WARM_UPS
from learner.learner import Learner
from learner.plain import PlainLearner


def noise_batches(config: Config, action_size: int) -> Iterator[Rows]:
    """One batch of noise, again and again: the same work as any other batch."""
    random = np.random.default_rng(0)
    leading = (config.sequences, config.training.batch_length)
    rows = Rows(
        image=random.integers(0, 256, (*leading, 64, 64, 3), np.uint8),
        action=random.uniform(-1, 1, (*leading, action_size)).astype(np.float32),
        reward=random.random(leading, np.float32),
        discount=np.ones(leading, np.float32),
        is_first=np.zeros(leading, np.bool_),
    )
    while True:
        yield rows


def measure(config: Config, action_size: int, device: str, updates: int, rounds: int) -> dict[str, Any]:
    """Updates a second of the learner as it trains and of the plain update, taking turns in this process."""
    torch.set_num_threads(learner_threads(config))
    batches = noise_batches(config, action_size)
    ours = Learner(config, action_size, batches, device)
    plain = PlainLearner(config, action_size, batches, device)
    with FlopCounterMode(display=False) as counter, ours.uncompiled():
        ours.update(1)
    ours.update(WARM_UPS + 1)  # compiled and captured, where that is asked for
    plain.update(1)

    def run(learner: Learner) -> float:
        return updates * rate(partial(learner.update, updates), 1)

    medians = interleaved({"ours": partial(run, ours), "plain": partial(run, plain)}, rounds)
    flops = counter.get_total_flops()
    syncs = waits(partial(ours.learn, next(ours.feed)), device)
    # Both are here, so neither's is the process's: what one update's tensors hold at once, beside weights and moments.
    if ours.captured is not None:
        ours.captured.forget()  # a graph has all its memory at any time; the plain call before it is made takes as much
    peaks = [peak_bytes(partial(learner.update, 1), device) for learner in (ours, plain)]
    return {
        "updates_per_second": medians["ours"],
        "eager_updates_per_second": medians["plain"],
        "speedup": medians["ours"] / medians["plain"],
        "precision": config.precision,
        "compile": config.compile,
        "eager_precision": "float32",
        "flops_per_update": flops,
        "achieved_flops_per_second": flops * medians["ours"],
        "syncs_per_update": syncs,
        "peak_memory_bytes": peaks[0],
        "eager_peak_memory_bytes": peaks[1],
        "device": device,
        "threads": torch.get_num_threads(),
        "preset": config.preset,
        "algorithm": config.algorithm,
        "machine": machine(),
    }
