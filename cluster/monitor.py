"""`dreamfleet monitor`: Prometheus beside the runs of this machine."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cluster.flags import parse
from cluster.monitoring import targets
from cluster.monitoring.files import PROMETHEUS
from common.errors import UserError

LOOK_SECONDS = 2.0
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class MonitorArguments:
    """Sets Prometheus up for the runs that go on, starts it, and keeps its list of runs up to date until Ctrl-C."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("runs"),)
    """Run folders, or folders that hold some, those of later runs included."""
    out: Path = Path("monitoring")
    """Folder for Prometheus' configuration and data."""
    host: str = "127.0.0.1"
    """Address that Prometheus listens on."""
    port: int = 9090
    """And its port."""
    start: bool = True
    """Start Prometheus; without it only the list of runs is kept up to date, for one that runs elsewhere."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(MonitorArguments, "monitor", args)
    for name in (signal.SIGINT, signal.SIGTERM):  # whoever ends it ends its Prometheus too
        signal.signal(name, signal.default_int_handler)
    missing = [str(folder) for folder in arguments.runs if not folder.is_dir()]
    if missing:
        raise UserError(f"no such folder: {', '.join(missing)}; name run folders, or folders that hold some")
    configuration = write_configuration(arguments.out)
    _look(arguments)
    if not arguments.start:
        print(f"{arguments.out / 'targets'}: kept up to date, Ctrl-C ends it")
        return _watch(arguments)
    program = shutil.which("prometheus")
    if program is None:
        raise UserError(f"install Prometheus to go on (Debian: apt-get install prometheus); {configuration} is ready")
    with _prometheus(program, configuration, arguments) as server:
        print(f"http://{_address(arguments)}: Prometheus, Ctrl-C ends it; its data stays in {arguments.out / 'data'}")
        return _watch(arguments, server)


def write_configuration(out: Path) -> Path:
    """Copies the configuration and the alert rules into a folder; the configuration's path."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in ("prometheus.yml", "alerts.yml"):
            shutil.copyfile(PROMETHEUS / name, out / name)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    return out / "prometheus.yml"


def _look(arguments: MonitorArguments) -> None:
    found = targets.find(arguments.runs)
    if targets.update(arguments.out / "targets" / "runs.json", found):
        names = ", ".join(str(target.get("labels", {}).get("run", "?")) for target in found)
        print(f"runs: {names or 'none yet'}", flush=True)


def _watch(arguments: MonitorArguments, server: subprocess.Popen[bytes] | None = None) -> int:
    """Looks for runs until Ctrl-C, or until Prometheus ends."""
    with contextlib.suppress(KeyboardInterrupt):
        while server is None or server.poll() is None:
            time.sleep(LOOK_SECONDS)
            _look(arguments)
        raise UserError(f"Prometheus ended (is port {arguments.port} taken?): see {arguments.out / 'prometheus.log'}")
    return 0


@contextlib.contextmanager
def _prometheus(program: str, configuration: Path, arguments: MonitorArguments) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={arguments.out / 'data'}",
        f"--web.listen-address={_address(arguments)}",
    ]
    with open(arguments.out / "prometheus.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()


def _address(arguments: MonitorArguments) -> str:
    return f"[{arguments.host}]:{arguments.port}" if ":" in arguments.host else f"{arguments.host}:{arguments.port}"
