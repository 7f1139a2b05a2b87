"""What install.sh does on a node, with a pip that writes down what it is asked for."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "ray" / "install.sh"


class Node:
    """A home folder as `ray up` leaves it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for folder in (".ray", "dreamfleet/dist", "dreamfleet/env/bin"):
            (home / folder).mkdir(parents=True)
        (home / ".ray/auth_token").write_text("token")
        (home / ".ray/auth_token").chmod(0o644)
        (home / "dreamfleet/requirements.lock").write_text("numpy==2.4.6\n")
        python = home / "dreamfleet/env/bin/python"
        python.write_text(f'#!/bin/sh\necho "$@" >> {home}/calls\n')
        python.chmod(0o755)

    def wheel(self, name: str, content: str, seconds: int) -> None:
        path = self.home / "dreamfleet/dist" / name
        path.write_text(content)
        os.utime(path, (seconds, seconds))

    def install(self, *packages: str) -> list[str]:
        """Runs it; what pip was asked for."""
        (self.home / "calls").write_text("")
        environment = {**os.environ, "HOME": str(self.home)}
        subprocess.run([SCRIPT, *packages], env=environment, check=True, capture_output=True)
        return (self.home / "calls").read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node(tmp_path)
    made.wheel("dreamfleet-0.1.0.whl", "first", 1_000)
    return made


def test_the_wheel_is_installed_with_the_versions_of_the_lock_file_and_what_the_cloud_needs(node: Node) -> None:
    calls = node.install("boto3")
    wheel = node.home / "dreamfleet/dist/dreamfleet-0.1.0.whl"
    assert f"-m pip install --quiet --constraint requirements.lock {wheel}[cluster] boto3" in calls
    assert calls[-1] == f"-m pip install --quiet --no-deps --force-reinstall {wheel}"


def test_again_with_the_same_files_it_installs_nothing(node: Node) -> None:
    node.install()
    assert node.install() == []


def test_a_newer_wheel_is_installed_and_so_is_another_one_of_the_same_version(node: Node) -> None:
    node.install()
    node.wheel("dreamfleet-0.1.0.whl", "other files", 2_000)
    assert any("dreamfleet-0.1.0.whl" in call for call in node.install())
    node.wheel("dreamfleet-0.2.0.whl", "second", 3_000)
    assert all("0.1.0" not in call for call in node.install())
    (node.home / "dreamfleet/requirements.lock").write_text("numpy==2.4.7\n")
    assert node.install() != []


def test_shells_find_it_and_the_token_is_for_its_owner_alone(node: Node) -> None:
    for _ in range(2):
        node.install()
    assert (node.home / ".bashrc").read_text() == ". ~/dreamfleet/deploy/ray/environment.sh\n"
    assert stat.S_IMODE((node.home / ".ray/auth_token").stat().st_mode) == 0o600
