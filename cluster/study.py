"""`dreamfleet study`: a grid of tasks × variants × seeds, resumed where it stopped, and one report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cluster.flags import parse
from cluster.studies.grid import Cell, cells, check_tasks, refuse_another_study
from cluster.studies.report import write_report
from cluster.studies.runner import Interrupted, Runner, finished
from cluster.studies.study import Study, load_study
from common.durable import replace_durably
from common.errors import UserError
from common.lock import InUseError, claim


@dataclass(frozen=True)
class StudyArguments:
    """Runs a grid of tasks × variants × seeds and writes one report; the same command goes on where it stopped."""

    file: Annotated[Path, tyro.conf.Positional]
    """Study file (YAML); docs/studies holds the papers' experiments."""
    out: Path
    """Folder of the runs and the report: made if it is not there, continued if it is."""
    jobs: int = 1
    """Runs at once. With --ray-address their roles share the cluster, which must have room for as many."""
    ray_address: str = ""
    """Ray cluster on which every run's roles work ('auto' or host:port); run folders stay on this machine."""
    dry_run: bool = False
    """Print the grid and stop."""
    report_only: bool = False
    """Run nothing; write the report from what is there."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 1 when a run failed, 130 when it was interrupted."""
    arguments = parse(StudyArguments, "study", args)
    if arguments.jobs < 1:
        raise UserError(f"--jobs must be positive, not {arguments.jobs}")
    study, grid = _read(arguments.file)
    out = arguments.out
    _refuse_another(out, study)
    if arguments.dry_run:
        print(_describe(grid, out))
        return 0
    if arguments.report_only:
        if not _copy(out).exists():
            raise UserError(f"--report-only: {out} holds no study")
        print(write_report(study, grid, out))
        return 0
    check_tasks(grid)
    return _run(arguments, study, grid)


def _run(arguments: StudyArguments, study: Study, grid: list[Cell]) -> int:
    out = arguments.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = claim(out)
    except InUseError as error:
        raise UserError(f"{error}; stop that study or name another --out") from None
    except OSError as error:
        raise UserError(f"cannot use {out} as a study's folder: {error.strerror}") from error
    try:
        return _run_claimed(arguments, study, grid)
    finally:
        os.close(lock)


def _run_claimed(arguments: StudyArguments, study: Study, grid: list[Cell]) -> int:
    out = arguments.out
    flags = ["--ray-address", arguments.ray_address] if arguments.ray_address else []
    runner = Runner(grid, out, arguments.jobs, flags)
    replace_durably(_copy(out), arguments.file.read_bytes())
    try:
        runner.run()
    except Interrupted:
        print(f"{out}: interrupted; the same command goes on")
        return 130
    print(write_report(study, grid, out))
    if runner.failed:
        print(f"{len(runner.failed)} of {len(grid)} runs failed: {', '.join(runner.failed)}")
        return 1
    return 0


def _read(file: Path) -> tuple[Study, list[Cell]]:
    study = load_study(file)
    try:
        return study, cells(study)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _copy(out: Path) -> Path:
    return out / "study.yaml"


def _refuse_another(out: Path, study: Study) -> None:
    if _copy(out).exists():
        try:
            refuse_another_study(load_study(_copy(out)), study)
        except UserError as error:
            raise UserError(f"{out} holds another study: {error}; name another --out") from None


def _describe(grid: list[Cell], out: Path) -> str:
    lines = [
        f"{cell.name}  {cell.config.env_steps:,} environment steps{'  finished' if finished(cell, out) else ''}"
        for cell in grid
    ]
    total = sum(cell.config.env_steps for cell in grid)
    return "\n".join((*lines, f"{len(grid)} runs, {total:,} environment steps"))
