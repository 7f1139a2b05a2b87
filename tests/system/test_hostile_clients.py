"""Whoever sends what to a run's port: the run computes what it would have, and answers those who ask properly."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.run_folder import RunFolder
from tests.cluster.commands import SMALL_RUN
from tests.system.processes import Training

pytestmark = pytest.mark.slow

RUN = [*SMALL_RUN, "--task", "tests.system.faulty:slow", "--env-steps", "800"]
BYTES = 64 * 1024


def garbage(rng: random.Random, connection: socket.socket) -> None:
    """Bytes of no kind."""
    connection.sendall(rng.randbytes(rng.randint(0, BYTES)))


def damaged(rng: random.Random, connection: socket.socket) -> None:
    """A request with bytes changed, left out, or said again."""
    request = bytearray(
        b"GET /metrics?run=x HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nContent-Length: 9\r\n\r\n"
    )
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(request))
        request[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 4)) * rng.choice((1, 1, 1000))
    connection.sendall(request)


def huge_headers(rng: random.Random, connection: socket.socket) -> None:
    """Headers without end."""
    connection.sendall(b"GET /metrics HTTP/1.1\r\n")
    for number in range(1000):
        connection.sendall(b"x-%d: %s\r\n" % (number, b"y" * 1000))


def huge_body(rng: random.Random, connection: socket.socket) -> None:
    """Would have the server read an exabyte."""
    connection.sendall(rng.choice((b"POST", b"PUT", b"DELETE", b"GET")) + b" /metrics HTTP/1.1\r\n")
    connection.sendall(b"Content-Length: 1000000000000000000\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(16):
        connection.sendall(b"ffffffff\r\n" + bytes(BYTES))


def slow(rng: random.Random, connection: socket.socket) -> None:
    """A byte a moment, in the hope that somebody waits for it."""
    for byte in b"GET /metrics HTTP/1.1\r\n":
        connection.sendall(bytes([byte]))
        time.sleep(0.3)


def silent(rng: random.Random, connection: socket.socket) -> None:
    """Says nothing, and reads nothing."""
    time.sleep(3.0)


def deaf(rng: random.Random, connection: socket.socket) -> None:
    """Asks again and again, and reads no answer."""
    for _ in range(2000):
        connection.sendall(b"GET /metrics HTTP/1.1\r\nConnection: keep-alive\r\n\r\n")


ATTACKS: list[Callable[[random.Random, socket.socket], None]] = [
    garbage,
    damaged,
    damaged,
    huge_headers,
    huge_body,
    slow,
    silent,
    deaf,
]


@contextmanager
def attacked(port: int, threads: int) -> Iterator[list[int]]:
    """So many clients who mean no good; how many connections each has made."""
    over, connections = threading.Event(), [0] * threads

    def attack(number: int) -> None:
        rng = random.Random(number)
        while not over.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connections[number] += 1
                rng.choice(ATTACKS)(rng, connection)
            time.sleep(0.05)

    workers = [threading.Thread(target=attack, args=[number], daemon=True) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield connections
    finally:
        over.set()
        for worker in workers:
            worker.join(60)


def page(url: str) -> str:
    """What the run answers, if it does."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return str(answer.read().decode())
    return ""


def outcome(folder: Path) -> dict[str, Any]:
    """What a run has computed, times left out."""
    summary = RunFolder(folder).summary()
    assert summary is not None
    names = ("finished", "env_steps", "updates", "random_return", "first_return", "last_return", "role_restarts")
    losses = [line["model_loss"] for line in RunFolder(folder).metrics() if "model_loss" in line]
    return {"losses": losses, **{name: summary[name] for name in names}}


def test_a_run_that_is_attacked_computes_the_same_and_opens_nothing_but_a_loopback_port(tmp_path: Path) -> None:
    pages: list[str] = []
    with Training(tmp_path / "attacked", RUN, tmp_path / "log", TINY_STEP_SECONDS="0.01") as run:
        run.until(lambda: "metrics: http" in run.text, 300)
        found = re.search(r"metrics: (http://127\.0\.0\.1:(\d+)/metrics)", run.text)
        assert found is not None, run.text
        listening = [
            connection.laddr.ip
            for connection in run.driver.net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == ["127.0.0.1"]
        with attacked(int(found[2]), threads=12) as connections:
            while run.driver.poll() is None:
                pages.append(page(found[1]))
                time.sleep(0.5)
        assert run.end(600) == 0, run.text
        assert "Traceback" not in run.text
    assert sum(connections) > 30, "it was attacked"
    answered = [text for text in pages if "dreamfleet_env_steps_total" in text]
    assert answered, "and answered who asked properly"
    with Training(tmp_path / "quiet", RUN, tmp_path / "log") as run:
        assert run.end(600) == 0, run.text
    assert outcome(tmp_path / "attacked") == outcome(tmp_path / "quiet")
