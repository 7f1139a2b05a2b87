"""One finished run of the smoke preset in the Ray runtime, shared by all who only look at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray._private import services

from cluster.main import main


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Runs in this process set the number of threads; others should not notice."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def patient_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of a test's own cluster may take minutes to start, on a machine that does much else."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setenv("RAY_agent_register_timeout_ms", "200000")
    ask = services.get_node

    def patiently(address: str, node: str) -> Any:
        deadline = time.monotonic() + 240
        while True:
            try:
                return ask(address, node)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    monkeypatch.setattr(services, "get_node", patiently)  # which Ray's test cluster asks for half a minute


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dreamfleet train --preset smoke` as it comes, but with a checkpoint to keep and two angles."""
    folder = tmp_path_factory.mktemp("smoke") / "run"
    options = ["--training.checkpoint-every", "10", "--keep-at", "10", "--eval-rotation", "0", "5"]
    assert main(["train", "--preset", "smoke", "--device", "cpu", *options, "--run-dir", str(folder)]) == 0
    return folder
