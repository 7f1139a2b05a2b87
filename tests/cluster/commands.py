"""Running `dreamfleet` in this process or in one of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.main import main

REPOSITORY = Path(__file__).parents[2]
SMALL_RUN = ["--preset", "smoke", "--task", "tests.tiny:make", "--runtime", "inline", "--device", "cpu"]
SMALL_RUN += ["--environment.action-repeat", "2", "--environment.time-limit", "24"]
"""A run of seconds on the suite's own task, in this process."""


def train(folder: Path, *args: str) -> list[str]:
    """The arguments of such a run."""
    return ["train", *SMALL_RUN, "--run-dir", str(folder), *args]


def one_line_and_exit_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command in this process, holds it to the contract for bad input, and returns its line."""
    capsys.readouterr()
    code = main(args)
    out, err = capsys.readouterr()
    assert code == 2, out + err
    assert out == ""
    assert err.startswith("dreamfleet: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.removeprefix("dreamfleet: ").rstrip("\n")


def command(args: list[str]) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-m", "cluster.main", *args]


def dreamfleet(args: list[str], timeout: float = 600.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own, with these environment variables on top."""
    return subprocess.run(
        command(args),
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder by its path, with a digest of its bytes; folders count too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
