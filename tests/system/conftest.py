"""One finished run of the smoke preset in the Ray runtime, shared by all who only look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cluster.main import main


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Runs in this process set the number of threads; others should not notice."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dreamfleet train --preset smoke` as it comes, but with a checkpoint to keep and two angles."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    options = ["--training.checkpoint-every", "10", "--keep-at", "10", "--eval-rotation", "0", "5"]
    assert main(["train", "--preset", "smoke", "--device", "cpu", *options, "--run-dir", str(folder)]) == 0
    return folder
