"""`dreamfleet doctor`: what this machine can do, and what to do about what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from cluster.doctor import examine
from cluster.doctor.report import render, to_json
from cluster.flags import parse


@dataclass(frozen=True)
class DoctorArguments:
    """Examines this machine; exit code 1 when something that training needs is missing."""

    json: bool = False
    """Print JSON."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(DoctorArguments, "doctor", args)
    findings = examine()
    if arguments.json:
        print(to_json(findings))
    else:
        render(findings, Console())
    return int(any(finding.status == "missing" for finding in findings))
