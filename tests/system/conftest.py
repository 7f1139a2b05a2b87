"""One finished run of the smoke preset in the Ray runtime, shared by all who only look at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cluster.main import main

SMOKE_SECONDS = 90.0


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Runs in this process set the number of threads; others should not notice."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Finished:
    """A run that has ended well.

    Attributes:
        folder: its run folder.
        seconds: how long it took from the command to the prompt.
    """

    folder: Path
    seconds: float


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`dreamfleet train --preset smoke` as it comes, but with a checkpoint to keep and two angles."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    began = time.monotonic()
    options = ["--training.checkpoint-every", "10", "--keep-at", "10", "--eval-rotation", "0", "5"]
    assert main(["train", "--preset", "smoke", "--device", "cpu", *options, "--run-dir", str(folder)]) == 0
    return Finished(folder, time.monotonic() - began)
