"""What this machine can do, what it lacks, and what to do about each lack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cluster.doctor import machine, ray_exposure, rendering, software
from cluster.doctor.finding import Finding, Status
from cluster.doctor.report import render, to_json

__all__ = ["Finding", "Status", "examine", "render", "to_json"]


def examine(folder: Path = Path()) -> list[Finding]:
    """Looks at everything that decides whether and how fast runs go; takes some seconds, most of them for one frame.

    Args:
        folder: where runs would be kept, for its free disk space.
    """
    checks: tuple[Callable[[], Finding], ...] = (
        software.python,
        software.packages,
        machine.cores,
        machine.memory,
        machine.shared_memory,
        lambda: machine.disk(folder),
        rendering.opengl,
        machine.gpu,
        software.compiler,
        software.redis,
        software.prometheus,
        ray_exposure.authentication,
        ray_exposure.ports,
    )
    return [check() for check in checks]
