"""Runs cells as child processes of `dreamfleet train`, some at once; the death of one is a line, not the end.

Children are in process groups of their own, so that a Ctrl-C reaches each of them once: they end with a checkpoint. A
child that outlives a killed study goes on with its run, and with the lock that it has inherited: the next study waits
for it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from cluster.progress import duration
from cluster.settings import changes_on_resume
from cluster.studies.grid import Cell
from cluster.train import is_finished
from common.config_io import to_yaml
from common.durable import replace_durably
from common.errors import UserError
from common.lock import InUseError, claim, sign
from common.run_folder import RunFolder

POLL_SECONDS = 0.2


class Interrupted(Exception):  # noqa: N818  # it is no error
    """The user asked to stop; every run has been given time to write its checkpoint."""


@dataclass
class _Run:
    cell: Cell
    process: subprocess.Popen[bytes]
    log: Path
    began: float


class Runner:
    """Runs what is not finished of a grid.

    Attributes:
        failed: names of the cells whose run did not finish.
    """

    def __init__(self, grid: list[Cell], out: Path, at_once: int, flags: list[str]) -> None:
        """Prepares the runs; `flags` are added to each command.

        Raises:
            UserError: a run folder holds another run than its cell's.
        """
        self.out = out
        self.at_once = at_once
        self.flags = flags
        self.failed: list[str] = []
        self.total = len(grid)
        self.waiting = [cell for cell in grid if not finished(cell, out)]
        self.running: list[_Run] = []
        self.told: set[str] = set()
        self.signals = 0

    def run(self) -> None:
        """Returns when every cell has finished or failed.

        Raises:
            Interrupted: SIGINT or SIGTERM came, and the runs under way have ended.
        """
        print(f"{self.total - len(self.waiting)} of {self.total} runs are finished", flush=True)
        with self._signals():
            while (self.waiting and not self.signals) or self.running:
                self._start_some()
                self._reap()
                time.sleep(POLL_SECONDS)
        if self.signals:
            raise Interrupted

    def _start_some(self) -> None:
        for cell in list(self.waiting):
            if self.signals or len(self.running) == self.at_once:
                return
            desk = cell.desk(self.out)
            desk.mkdir(parents=True, exist_ok=True)
            try:
                lock = claim(desk)
            except InUseError as error:
                self._tell_once(cell, f"{error}, as a study that was killed left it: waiting for it")
                continue
            try:
                if not finished(cell, self.out):
                    self._discard(cell)
                    self.running.append(self._start(cell, desk, lock))
                self.waiting.remove(cell)
            except InUseError as error:
                self._tell_once(cell, f"{error}: waiting for it")
            finally:
                os.close(lock)  # the child has inherited it, and holds it to its end

    def _discard(self, cell: Cell) -> None:
        """Takes an unfinished run away where it is to begin anew.

        Raises:
            InUseError: somebody is at work in the run folder.
        """
        path, discarded = cell.folder(self.out), cell.desk(self.out) / "discarded"
        shutil.rmtree(discarded, ignore_errors=True)
        if not cell.anew or not path.exists():
            return
        folder = RunFolder(path)
        folder.lock()
        try:
            path.rename(discarded)  # whole or gone: a kill leaves no half of a run
        finally:
            folder.unlock()
        shutil.rmtree(discarded)

    def _start(self, cell: Cell, desk: Path, lock: int) -> _Run:
        path, config, log = cell.folder(self.out), desk / "config.yaml", desk / "output.log"
        replace_durably(config, to_yaml(cell.config).encode())
        print(f"{cell.name}: {'resumed' if RunFolder(path).exists else 'begun'}, output in {log}", flush=True)
        command = [sys.executable, "-P", "-m", "cluster.main", "train", "--config", str(config), "--run-dir", str(path)]
        # The child imports what this process would; -P keeps a folder of the user's from hiding a package of ours.
        paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [*command, *self.flags],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": paths},
                process_group=0,
                pass_fds=(lock,),
            )
        sign(lock, process.pid)
        return _Run(cell, process, log, time.monotonic())

    def _tell_once(self, cell: Cell, message: str) -> None:
        if cell.name not in self.told:
            self.told.add(cell.name)
            print(f"{cell.name}: {message}", flush=True)

    def _reap(self) -> None:
        for run in list(self.running):
            code = run.process.poll()
            if code is None:
                continue
            self.running.remove(run)
            took = duration(time.monotonic() - run.began)
            if finished(run.cell, self.out):
                print(f"{run.cell.name}: finished in {took}", flush=True)
            elif self.signals:
                print(f"{run.cell.name}: stopped", flush=True)
            else:
                self.failed.append(run.cell.name)
                print(f"{run.cell.name}: failed after {took}, exit code {code}: {_last_line(run.log)}", flush=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Passes SIGINT and SIGTERM on to the children: the first time they stop with a checkpoint, then at once."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.signals += 1
            for run in self.running:
                run.process.send_signal(signal.SIGINT)

        previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def finished(cell: Cell, out: Path) -> bool:
    """Whether the cell's run is there and has ended.

    Raises:
        UserError: the folder holds another run.
    """
    folder = RunFolder(cell.folder(out))
    if not folder.exists:
        return False
    try:
        changes_on_resume(folder.load_config(), cell.config)
    except UserError as error:
        raise UserError(f"{cell.name}: {error}") from None
    return is_finished(folder, cell.config)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")
