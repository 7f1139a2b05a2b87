"""Learners that share their batches in two real processes, over gloo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch
import torch.distributed as dist

from common.config import Config
from common.sequence import Rows
from learner.data_parallel import DataParallel
from learner.learner import Learner
from learner.ranks import ALONE, Ranks
from tests.learner.tiny import ACTIONS, random_rows, tiny_config

RANKS = 2
SEQUENCES = 4
_Rest = ParamSpec("_Rest")
Body = Callable[Concatenate[Ranks, _Rest], object]


def whole_config(**settings: Any) -> Config:
    """The tiny configuration with twice its sequences."""
    config = tiny_config(**settings)
    return dataclasses.replace(config, training=dataclasses.replace(config.training, batch_size=SEQUENCES))


def whole_rows(seed: int) -> Rows:
    """Four sequences, those of the second rank much brighter; numbers are of torch's default type."""
    first, second = random_rows(2 * seed), random_rows(2 * seed + 1)
    second = dataclasses.replace(second, image=second.image // 4 + 190, reward=second.reward + 2.0)
    rows = Rows.concatenate([first, second])
    wide = {name: getattr(rows, name).astype(_dtype()) for name in ("action", "reward", "discount")}
    return dataclasses.replace(rows, **wide)


def own_rows(rows: Rows, ranks: Ranks) -> Rows:
    """A rank's share of the sequences."""
    size = SEQUENCES // ranks.size
    return rows[ranks.rank * size : (ranks.rank + 1) * size]


def batches(ranks: Ranks) -> Iterator[Rows]:
    """A rank's endless batches."""
    number = 0
    while True:
        yield own_rows(whole_rows(number), ranks)
        number += 1


def learner_of(config: Config, ranks: Ranks, source: Iterator[Rows] | None = None) -> Learner:
    """One of the ranks, or the only one."""
    return Learner(config, ACTIONS, batches(ranks) if source is None else source, ranks=ranks)


def run_both(folder: Path, body: Body[...], *args: object, timeout: float = 600.0) -> list[Any]:
    """What `body(ranks, *args)` returns in each of two processes; None of one that died over it."""
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(rank, folder, timeout, body, args)) for rank in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(900)
        assert process.exitcode is not None, "a rank hangs"
    return [_told(folder / f"{rank}.pt") for rank in range(RANKS)]


def _told(path: Path) -> Any:
    """What one of our own processes has written: reports among it, which are more than tensors."""
    return torch.load(path, weights_only=False) if path.exists() else None


def _work(rank: int, folder: Path, timeout: float, body: Body[...], args: tuple[object, ...]) -> None:
    torch.set_num_threads(1)

    def meet() -> dist.Store:
        return dist.FileStore(str(folder / "meeting"), RANKS)

    ranks = DataParallel(rank, RANKS, torch.device("cpu"), meet, timedelta(seconds=timeout))
    torch.save(body(ranks, *args), folder / f"{rank}.pt")


def alone(body: Body[...], *args: object) -> Any:
    """What the body returns in this process, with the whole batch."""
    return body(ALONE, *args)


def _dtype() -> type[np.floating]:
    return np.float64 if torch.get_default_dtype() == torch.float64 else np.float32
