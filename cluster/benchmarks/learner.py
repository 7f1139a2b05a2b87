"""The learner's update against the plain, step-by-step one of the same model."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from cluster.benchmarks.measure import interleaved, machine, rate
from cluster.runtimes.roles import learner_threads
from common.config import Config
from common.sequence import Rows
from learner.learner import Learner


def noise_batches(config: Config, action_size: int) -> Iterator[Rows]:
    """One batch of noise, again and again: the same work as any other batch."""
    random = np.random.default_rng(0)
    leading = (config.training.batch_size, config.training.batch_length)
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
    """Updates a second of the learner as it trains and of the step-by-step update, taking turns in this process."""
    torch.set_num_threads(learner_threads(config))
    batches = noise_batches(config, action_size)
    ours = Learner(config, action_size, batches, device)
    plain = Learner(config, action_size, batches, device)
    plain_rssm = plain.world_model.rssm
    setattr(plain_rssm, "observe", plain_rssm.observe_by_steps)  # noqa: B010 (a method is not assignable for mypy)
    with FlopCounterMode(display=False) as counter:
        ours.update(1)
    plain.update(1)

    def run(learner: Learner) -> float:
        return updates * rate(partial(learner.update, updates), 1)

    medians = interleaved({"ours": partial(run, ours), "plain": partial(run, plain)}, rounds)
    flops = counter.get_total_flops()
    on_gpu = device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "updates_per_second": medians["ours"],
        "eager_updates_per_second": medians["plain"],
        "speedup": medians["ours"] / medians["plain"],
        "precision": "float32",
        "eager_precision": "float32",
        "flops_per_update": flops,
        "achieved_flops_per_second": flops * medians["ours"],
        "peak_memory_bytes": peak,
        "device": device,
        "threads": torch.get_num_threads(),
        "preset": config.preset,
        "algorithm": config.algorithm,
        "machine": machine(),
    }
