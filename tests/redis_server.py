"""A real Redis server on a free port, in a process of the tests' own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Self

import redis

from tests.free_port import free_port


class RedisServer:
    """`redis-server` with an append-only file that is flushed at every write; leaving the context ends it.

    Args:
        folder: for its file and log.
        password: that it asks for.
        settings: more of its settings, by name.
    """

    def __init__(self, folder: Path, password: str = "", **settings: str) -> None:
        self.folder = folder
        self.password = password
        self.settings = {"appendonly": "yes", "appendfsync": "always", "save": "", **settings}
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it on what its folder holds, and waits until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        options = {**self.settings, "port": str(self.port), "dir": str(self.folder), "bind": "127.0.0.1"}
        if self.password:
            options["requirepass"] = self.password
        arguments = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(["redis-server", *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                self.client().ping()
                return
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
        raise TimeoutError((self.folder / "log").read_text())

    def client(self) -> redis.Redis:
        """A connection of the tests' own."""
        return redis.Redis(port=self.port, password=self.password or None)

    def kill(self) -> None:
        """kill -9: what was acknowledged must be in its file."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """It keeps its connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)
