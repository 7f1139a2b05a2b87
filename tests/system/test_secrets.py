"""A run whose replay is on a Redis server with a password: who gets in, and where its secrets can be read."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from common.run_folder import RunFolder
from tests.cluster.commands import dreamfleet
from tests.redis_server import RedisServer
from tests.system.processes import Training

pytestmark = pytest.mark.slow

TASK = ["--preset", "smoke", "--task", "tests.tiny:make", "--device", "cpu", "--env-steps", "10000000"]
TASK += ["--environment.action-repeat", "2", "--environment.time-limit", "24", "--replay-store", "redis"]
JOIN = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); print('joined', ray.is_initialized())"


def environment(home: Path, **variables: str) -> dict[str, str]:
    """That of somebody with this home folder, who has set nothing about Ray but `variables`."""
    home.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**inherited, "HOME": str(home), **variables}


def join(address: str, home: Path, **variables: str) -> str:
    """What a driver prints that tries to join this Ray."""
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env=environment(home, **variables),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode == 0) == ("joined True" in done.stdout)
    return done.stdout + done.stderr


def option(command_lines: list[list[str]], name: str) -> str:
    """The value of an option that one of the processes was started with."""
    found = [word.partition("=")[2] for line in command_lines for word in line if word.startswith(f"{name}=")]
    return found[0] if found else ""


def files_with(secret: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_strangers_are_refused_and_no_secret_is_in_a_log_a_process_list_or_the_run_folder(tmp_path: Path) -> None:
    password = secrets.token_hex(20)
    home = tmp_path / "home"
    with RedisServer(tmp_path / "redis", password) as server:
        args = [*TASK, "--redis-url", server.url]
        mine = environment(home, DREAMFLEET_REDIS_PASSWORD=password)
        with Training(tmp_path / "run", args, tmp_path / "output", **mine) as training:
            training.until(lambda: training.stored() >= 1000, 240)
            lines = [process.cmdline() for process in training.processes()]
            address, logs = option(lines, "--gcs-address"), Path(option(lines, "--session-dir"))
            token = (home / ".ray" / "auth_token").read_text()

            assert "joined" in join(address, home, RAY_AUTH_MODE="token")
            assert "no authentication token was found" in join(address, tmp_path / "stranger", RAY_AUTH_MODE="token")
            assert "InvalidAuthToken" in join(address, tmp_path / "stranger", RAY_AUTH_MODE="disabled")
            other = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            assert "InvalidAuthToken" in join(address, tmp_path / "stranger", **other)

            train = ["train", *args, "--run-dir", str(tmp_path / "strangers"), "--ray-address", address]
            for variables, says in (
                ({"RAY_AUTH_MODE": "token"}, "there is no token here"),
                (other, "or it asks for another token"),
            ):
                refused = dreamfleet(
                    train,
                    240,
                    **environment(tmp_path / "stranger", **variables),
                    **{"DREAMFLEET_REDIS_PASSWORD": password},
                )
                assert refused.returncode == 2
                assert says in refused.stderr
                assert refused.stderr.count("\n") == 1, refused.stderr

            lines += [process.cmdline() for process in training.processes()]
            training.interrupt()
            assert training.end(180) in (0, 130), training.text
            output = training.text
    assert RunFolder(tmp_path / "run").summary() is not None
    assert logs.is_dir()
    for secret in (password, token):
        assert secret not in output
        assert all(secret not in word for line in lines for word in line)
        assert files_with(secret, tmp_path / "run") == []
        assert files_with(secret, logs) == []
