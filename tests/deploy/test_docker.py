"""The image's recipe, as far as it can be held to account without a Docker daemon."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and what follows it, continued lines joined."""
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def sources() -> list[str]:
    """What is copied out of the repository."""
    copies = [rest for word, rest in instructions() if word == "COPY" and "--from=" not in rest]
    return [source for copy in copies for source in copy.split()[:-1]]


def variable(name: str) -> str:
    found = re.search(rf"^{name} := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    ignored = [
        line for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert ignored[0] == "*"
    kept = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    for source in sources():
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in kept), source
    assert {"pyproject.toml", "requirements.lock", *kept} == {*sources()}


def test_every_package_of_the_wheel_is_copied() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.removesuffix("*") for package in packages} <= set(sources())


def test_the_image_has_what_make_install_installs() -> None:
    runs = "\n".join(rest for word, rest in instructions() if word == "RUN")
    for package in variable("SYSTEM_PACKAGES").split():
        assert re.search(rf"\b{package}\b", runs), package
    torch = re.search(r"torch==\S+", (ROOT / "Makefile").read_text())
    assert torch is not None
    assert torch[0] in runs
    assert torch[0] in (ROOT / "deploy/ray/install.sh").read_text()
    assert "--constraint /tmp/requirements.lock" in runs


def test_it_runs_as_nobody_special_and_holds_no_secret() -> None:
    users = [rest for word, rest in instructions() if word == "USER"]
    assert users[-1].isdigit()  # Kubernetes' runAsNonRoot takes numbers alone
    assert int(users[-1]) > 0
    for word, rest in instructions():
        assert word not in ("ARG", "ENV") or not re.search(r"TOKEN=|PASSWORD|SECRET", rest)


def test_bases_are_pinned_to_a_python_that_the_wheel_takes() -> None:
    bases = [rest for word, rest in instructions() if word == "FROM"]
    assert all(base.startswith("python:${PYTHON}-slim-") for base in bases)
    assert ("ARG", "PYTHON=3.11") in instructions()
