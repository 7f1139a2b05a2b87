"""The inline runtime is the reference: a seed decides everything that it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.numpy

from cluster.main import main
from common.run_folder import RunFolder

ARGUMENTS = ["train", "--preset", "smoke", "--runtime", "inline", "--device", "cpu", "--training.learner-threads", "1"]


def train(folder: Path, seed: int) -> RunFolder:
    assert main([*ARGUMENTS, "--seed", str(seed), "--run-dir", str(folder)]) == 0
    return RunFolder(folder)


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without what a clock decides."""
    return [
        {key: value for key, value in record.items() if not key.endswith(("_seconds", "_per_second"))}
        for record in records
    ]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    first, second, other = train(tmp_path / "a", 1), train(tmp_path / "b", 1), train(tmp_path / "c", 2)
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
    assert untimed(first.evaluations()) != untimed(other.evaluations())
    assert untimed(first.metrics()) != untimed(other.metrics())
