"""Python, the packages, and the programs that some features want."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster.doctor.finding import Finding

SUPPORTED_PYTHON = ">=3.11,<3.13"
_DISTRIBUTION = "dreamfleet"
_SHOWN = ("ray", "torch", "dm_control", "mujoco")
_PROGRAM_SECONDS = 10


def python() -> Finding:
    """Whether this is a Python that the project supports."""
    version = platform.python_version()
    detail = f"{version} at {sys.executable}"
    if version in SpecifierSet(SUPPORTED_PYTHON):
        return Finding("Python", "ok", detail)
    return Finding("Python", "missing", detail, f"use a Python {SUPPORTED_PYTHON}")


def packages() -> Finding:
    """Holds every installed version against the range in the project's own metadata."""
    try:
        requirements = [Requirement(line) for line in metadata.requires(_DISTRIBUTION) or ()]
    except metadata.PackageNotFoundError:
        detail = f"{_DISTRIBUTION} runs without being installed, so that nothing tells which versions it wants"
        return Finding("packages", "warn", detail, "pip install -e . in the project's folder")
    faults = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            faults.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            faults.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    if faults:
        return Finding("packages", "missing", "; ".join(faults), "install the project again, with its lock file")
    return Finding("packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN))


def compiler() -> Finding:
    """Whether `torch.compile` finds the C++ compiler and the Python header that its kernels are built with."""
    wanted = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, [wanted] if wanted else ["g++", "clang++"])), None)
    if found is None:
        detail = f"none: CXX={wanted} is no program" if wanted else "none: neither g++ nor clang++"
        return Finding("C++ compiler", "warn", detail, "apt-get install g++; until then updates run uncompiled")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
        advice = f"apt-get install {package}; until then updates run uncompiled"
        return Finding("C++ compiler", "warn", f"{found}, but no {header}", advice)
    return Finding("C++ compiler", "ok", _first_line([found, "--version"]))


def redis() -> Finding:
    """Whether a Redis server can be started here."""
    return _program("redis-server", "apt-get install redis-server; only --replay-store redis and its tests want it")


def prometheus() -> Finding:
    """Whether a Prometheus can be started here."""
    return _program("prometheus", "apt-get install prometheus; only the dashboards and their tests want it")


def _program(name: str, advice: str) -> Finding:
    found = shutil.which(name)
    if found is None:
        return Finding(name, "warn", "not installed", advice)
    return Finding(name, "ok", _first_line([found, "--version"]))


def _first_line(command: list[str]) -> str:
    """The first line a program prints about itself, or its path when it says nothing in time."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_PROGRAM_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return command[0]
    return next(iter((run.stdout or run.stderr).splitlines()), command[0])
