"""Runs in processes of their own, watched, interrupted and killed by process number."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

from common.jsonl import JsonLines
from tests.cluster.commands import REPOSITORY, command


class Training:
    """`dreamfleet train` in a session of its own; leaving the context kills what is left of it."""

    def __init__(self, folder: Path, args: list[str], output: Path, **environment: str) -> None:
        self.folder = folder
        self.output = output
        self.args = ["train", *args, "--run-dir", str(folder)]
        self.environment = environment
        self.known: dict[int, psutil.Process] = {}

    def __enter__(self) -> Self:
        with open(self.output, "w") as output:
            self.driver = psutil.Popen(
                command(self.args),
                cwd=REPOSITORY,
                env={**os.environ, **self.environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text()

    def processes(self) -> list[psutil.Process]:
        """The driver and all that descends from it, those whose parent has died since included."""
        if self.driver.is_running():
            for process in [self.driver, *self.driver.children(recursive=True)]:
                self.known[process.pid] = process
        return [process for process in self.known.values() if process.is_running()]

    def role(self, kind: str) -> psutil.Process | None:
        """The process that Ray titled with this kind of role."""
        return next(iter(self.roles(kind)), None)

    def roles(self, kind: str) -> list[psutil.Process]:
        """The processes that Ray titled so."""
        return [process for process in self.processes() if _title(process).startswith(f"ray::{kind}")]

    def stored(self) -> int:
        """The environment steps of the newest line of metrics.jsonl."""
        lines = JsonLines(self.folder / "metrics.jsonl").read()
        return max((line["env_steps"] for line in lines), default=0)

    def until(self, condition: Callable[[], object], seconds: float = 600.0) -> None:
        """Waits for a condition; fails with what the run has printed when it ends or takes too long."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.driver.poll() is None, f"the run ended with {self.driver.returncode}:\n{self.text}"
            assert time.monotonic() < deadline, f"not within {seconds} s:\n{self.text}"
            self.processes()
            time.sleep(0.1)

    def end(self, seconds: float = 900.0) -> int:
        """Waits for the end; the exit code."""
        deadline = time.monotonic() + seconds
        while self.driver.poll() is None:
            assert time.monotonic() < deadline, f"no end within {seconds} s:\n{self.text}"
            self.processes()
            time.sleep(0.2)
        return int(self.driver.returncode)

    def interrupt(self) -> None:
        """What a terminal's Ctrl-C does: SIGINT to every process of the driver's group."""
        os.killpg(self.driver.pid, signal.SIGINT)

    def kill(self) -> None:
        """kill -9 of everything, the driver first, as when a machine goes away."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        with contextlib.suppress(OSError):  # psutil's way to wait may find a process gone before it looks
            psutil.wait_procs(list(self.known.values()), timeout=120)


def _title(process: psutil.Process) -> str:
    try:
        return next(iter(process.cmdline()), "")
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
