"""Which code this is: what tells one installation of Dreamfleet from another."""

from __future__ import annotations

import functools
import hashlib
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOMS = ("common", "replay_service", "learner", "actors", "cluster")
PACKAGES = ("ray", "torch", "numpy", "mujoco", "dm_control")
"""What must be the same on every node: what carries messages, computes, and simulates."""


class Installation(NamedTuple):
    """What runs here.

    Attributes:
        files: the fingerprint of the five packages' files.
        versions: of Python and of the packages that matter, by name.
    """

    files: str
    versions: dict[str, str]

    def instead_of(self, other: Installation) -> str:
        """What is different here, as a list for people; empty if nothing is."""
        found = [
            f"{name} {self.versions.get(name, 'none')} instead of {version}"
            for name, version in other.versions.items()
            if self.versions.get(name) != version
        ]
        if self.files != other.files:
            found.insert(0, f"other Dreamfleet files ({self.files}) than this one ({other.files})")
        return ", ".join(found)


@functools.cache
def installation() -> Installation:
    """What runs in this process."""
    versions = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in PACKAGES:
        try:
            # 2.13.0+cpu and 2.13.0+cu128 are one version of torch, built for an actor's node and a learner's.
            versions[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return Installation(fingerprint(), versions)


@functools.cache
def fingerprint() -> str:
    """Eight characters that are the same wherever the five packages hold the same Python files."""
    digest = hashlib.sha256()
    root = Path(__file__).parent.parent
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:8]
