"""`dreamfleet replay export`: everything that is held, as a dataset."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cluster.flags import parse
from cluster.replay_data.opening import open_data
from cluster.replay_data.waiting import showing
from common.errors import UserError
from replay_service.datasets.export import export


@dataclass(frozen=True)
class ExportArguments:
    """Writes a dataset: one safetensors file an episode, and dataset.json. The run may go on meanwhile.

    What cannot be read is named and left out; exit code 1 then.
    """

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """Run folder, dataset, or redis://host:port#PREFIX."""
    out: Path
    """Folder of the dataset; must not be there."""
    task: str = ""
    """Task, for redis://host:port#PREFIX, which does not tell."""
    action_repeat: int = 0
    """Environment steps a row, for redis://host:port#PREFIX, which does not tell."""
    redis_password_file: str = ""
    """File with the password of the Redis servers, instead of DREAMFLEET_REDIS_PASSWORD."""


def main(args: Sequence[str]) -> int:
    """Runs the action; returns the exit code: 1 when something could not be read."""
    arguments = parse(ExportArguments, "replay export", args)
    opened = open_data(arguments.data, arguments.redis_password_file, arguments.task, arguments.action_repeat)
    if not opened.source.facts.task:
        raise UserError(f"{arguments.data} does not tell the run's task: give --task")
    with showing("exporting") as progress:
        result = export(opened.source, arguments.out, progress)
    opened.source.close()
    for line in result.damaged:
        print(f"left out: {line}", file=sys.stderr)
    if result.evicted:
        print(f"left out: {result.evicted:,} chunks that the run evicted before they were read", file=sys.stderr)
    counts = result.manifest.counts
    print(
        f"{arguments.out}: {counts.episodes:,} episodes and {counts.fragments:,} fragments, {counts.chunks:,} chunks, "
        f"{counts.env_steps:,} environment steps"
    )
    return int(bool(result.damaged))
