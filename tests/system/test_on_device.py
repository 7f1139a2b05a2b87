"""Runs whose learner keeps the replay's rows on its device: here on the CPU, which computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cluster.main import main
from common.run_folder import RunFolder
from learner.device_rows import row_bytes
from tests.system.test_determinism import TINY, train, untimed

BATCH = 4 * 8


def test_rows_on_the_device_give_the_same_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ordinary = train(tmp_path / "off", *TINY, "--replay-on-device", "off")
    assert "replay on cpu" not in capsys.readouterr().out
    on_device = train(tmp_path / "on", *TINY, "--replay-on-device", "on")
    assert "replay on cpu: yes, up to 5,449 rows, 0.1 GB" in capsys.readouterr().out
    lines = [untimed(run.metrics()) for run in (ordinary, on_device)]
    given = [sum(line.pop("batch_bytes") for line in side) for side in lines]
    assert lines[0] == lines[1]
    assert any("model_loss" in line for line in lines[0])
    assert given[1] < given[0] / 2
    one, other = (run.newest_checkpoint() for run in (ordinary, on_device))
    assert one is not None
    assert other is not None
    assert [one.read(name) for name in one.names] == [other.read(name) for name in one.names]


@pytest.mark.parametrize(
    "options",
    [
        [],
        pytest.param(
            ["--replay-store", "memory", "--actors", "2", "--replay.shards", "2"],
            marks=pytest.mark.slow,
            id="two shards",
        ),
        pytest.param(["--learners", "2"], marks=pytest.mark.slow, id="two learners"),
    ],
)
def test_a_run_over_ray_brings_each_row_to_each_learner_s_device_once(tmp_path: Path, options: list[str]) -> None:
    args = ["--preset", "smoke", *TINY, "--device", "cpu", "--replay-on-device", "on", *options]
    assert main(["train", *args, "--run-dir", str(tmp_path / "run")]) == 0
    folder = RunFolder(tmp_path / "run")
    summary, lines = folder.summary(), folder.metrics()
    assert summary is not None
    assert summary["finished"]
    losses = [line["model_loss"] for line in lines if "model_loss" in line]
    assert np.isfinite(losses).all()
    learners = 2 if "--learners" in options else 1
    rows = learners * max(line["replay_rows"] for line in lines)
    given = sum(line["batch_bytes"] for line in lines)
    updates = max(line["updates"] for line in lines)
    assert 0 < given <= rows * row_bytes(1) + 8 * (rows + updates * BATCH)
    assert given < updates * BATCH * row_bytes(1)


def test_rows_that_do_not_fit_end_a_run_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "--preset",
        "smoke",
        *TINY,
        "--device",
        "cpu",
        "--replay-on-device",
        "on",
        "--replay.capacity",
        "10000000000",
    ]
    assert main(["train", *args, "--runtime", "inline", "--run-dir", str(tmp_path / "run")]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(
        "dreamfleet: --replay-on-device on: 5,416,666,699 rows, 66,630.4 GB, are more than 90% of the"
    )
