"""The two Redis servers of a cluster's head, started for real: who gets in, and who reads what."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.free_port import free_port

SCRIPT = Path(__file__).parents[2] / "deploy" / "redis" / "on_head.sh"


class Head:
    """What on_head.sh has started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.replay_port, self.ray_port = free_port(), free_port()

    def start(self) -> None:
        environment = {
            **os.environ,
            "DREAMFLEET_REDIS_HOME": str(self.home),
            "DREAMFLEET_REPLAY_PORT": str(self.replay_port),
            "DREAMFLEET_RAY_REDIS_PORT": str(self.ray_port),
            "DREAMFLEET_REPLAY_MEMORY": "100mb",
        }
        subprocess.run([SCRIPT], env=environment, check=True, timeout=120)

    def pid(self, server: str) -> int:
        return int((self.home / server / "pid").read_text())

    def replay(self, password: str) -> redis.Redis:
        return redis.Redis("127.0.0.1", self.replay_port, username="dreamfleet", password=password)

    def ray(self, certificate: bool) -> redis.Redis:
        files = {"ssl_certfile": self.home / "ray/cert.pem", "ssl_keyfile": self.home / "ray/key.pem"}
        shown = {name: str(file) for name, file in files.items()} if certificate else {}
        return redis.Redis("127.0.0.1", self.ray_port, ssl=True, ssl_ca_certs=str(self.home / "ray/cert.pem"), **shown)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    made = Head(tmp_path_factory.mktemp("head"))
    made.start()
    for client in (made.replay((made.home / "password").read_text().strip()), made.ray(certificate=True)):
        for _ in range(300):
            with suppress(redis.exceptions.ConnectionError):
                client.ping()
                break
            time.sleep(0.1)
    yield made
    for server in ("replay", "ray"):
        os.kill(made.pid(server), signal.SIGKILL)


def test_the_replays_server_wants_the_password_and_gives_no_more_than_replays_need(head: Head) -> None:
    password = (head.home / "password").read_text().strip()
    assert head.replay(password).set("dreamfleet:x", "1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        head.replay(password).flushall()
    with pytest.raises(redis.exceptions.NoPermissionError):
        head.replay(password).set("elsewhere", "1")
    with pytest.raises(redis.exceptions.AuthenticationError):
        head.replay("another").ping()
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis("127.0.0.1", head.replay_port).ping()


def test_rays_server_wants_its_own_certificate(head: Head) -> None:
    assert head.ray(certificate=True).ping()
    with pytest.raises(redis.exceptions.ConnectionError):
        head.ray(certificate=False).ping()
    with pytest.raises(redis.exceptions.ConnectionError):
        redis.Redis("127.0.0.1", head.ray_port).ping()


def test_no_secret_is_in_a_process_list_a_log_or_a_file_for_others(head: Head) -> None:
    password = (head.home / "password").read_text().strip()
    key = (head.home / "ray/key.pem").read_text().splitlines()[1]
    for server in ("replay", "ray"):
        assert password not in Path(f"/proc/{head.pid(server)}/cmdline").read_text()
        assert not {password, key} & set((head.home / server / "log").read_text().split())
    for path in head.home.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            assert path.name == "password" or password.encode() not in path.read_bytes(), path
    assert "password" not in (head.home / "ray.env").read_text()


def test_started_again_it_keeps_servers_and_secrets_and_what_a_killed_one_had_acknowledged(head: Head) -> None:
    secrets = {name: (head.home / name).read_bytes() for name in ("password", "users.acl", "ray/cert.pem")}
    password = secrets["password"].decode().strip()
    head.ray(certificate=True).set("kept", "1")
    replay = head.pid("replay")
    os.kill(head.pid("ray"), signal.SIGKILL)
    with suppress(OSError):
        while True:
            socket.create_connection(("127.0.0.1", head.ray_port)).close()
            time.sleep(0.05)
    head.start()
    assert head.pid("replay") == replay
    assert head.replay(password).ping()
    for _ in range(300):
        with suppress(redis.exceptions.ConnectionError):
            assert head.ray(certificate=True).get("kept") == b"1"
            break
        time.sleep(0.1)
    else:
        pytest.fail("Ray's server did not come back")
    assert {name: (head.home / name).read_bytes() for name in secrets} == secrets
