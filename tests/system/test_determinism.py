"""The inline runtime is the reference: a seed decides everything that it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.numpy

from cluster.main import main
from common.run_folder import RunFolder

ARGUMENTS = ["train", "--preset", "smoke", "--runtime", "inline", "--device", "cpu", "--training.learner-threads", "1"]
TINY = ["--task", "tests.tiny:make", "--environment.action-repeat", "2", "--environment.time-limit", "24"]


def train(folder: Path, *args: str) -> RunFolder:
    assert main([*ARGUMENTS, *args, "--run-dir", str(folder)]) == 0
    return RunFolder(folder)


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without what a clock decides."""
    return [
        {key: value for key, value in record.items() if not key.endswith(("_seconds", "_per_second"))}
        for record in records
    ]


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert untimed(first.metrics()) == untimed(second.metrics())
    assert untimed(first.evaluations()) == untimed(second.evaluations())
    left, right = first.newest_checkpoint(), second.newest_checkpoint()
    assert left is not None
    assert right is not None
    assert left.names == right.names
    for name in left.names:
        one, two = safetensors.numpy.load(left.read(name)), safetensors.numpy.load(right.read(name))
        assert one.keys() == two.keys()
        assert all(one[key].tobytes() == two[key].tobytes() for key in one)


def test_another_seed_gives_another_run(tmp_path: Path) -> None:
    first, second = (train(tmp_path / seed, *TINY, "--seed", seed) for seed in ("1", "2"))
    for records in (RunFolder.evaluations, RunFolder.metrics):
        assert untimed(records(first)) != untimed(records(second))
