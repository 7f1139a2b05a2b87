"""`dreamfleet evaluate`: plays episodes with a run's newest checkpoint, without exploration noise."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from actors.evaluator import Evaluator
from actors.rendering import probe
from actors.video import FILMED_EPISODES, frames_per_second, side_by_side, write_video
from cluster.flags import parse
from cluster.runtimes.roles import learner_threads
from common.errors import UserError
from common.reports import EvaluationReport
from common.run_folder import RunFolder
from learner.policy import Policy


@dataclass(frozen=True)
class EvaluateArguments:
    """Evaluates a run's newest complete checkpoint."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    episodes: int = 10
    """Episodes at each angle."""
    rotation: tuple[float, ...] = (0.0,)
    """Angles in degrees: images are rotated by U(-angle, angle)."""
    rotation_per_episode: bool = False
    """Draw one angle an episode instead of one a frame."""
    seed: int = 0
    """Seed of environments, angles and policy."""
    video: str = ""
    """Film the first episodes into this .mp4 or .gif."""
    json: bool = False
    """Print JSON: one record, or a list for several angles."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    arguments = parse(EvaluateArguments, "evaluate", args)
    _validate(arguments)
    folder = RunFolder(arguments.run)
    config = folder.load_config()
    checkpoint = folder.newest_checkpoint()
    for damaged in folder.skipped:
        print(f"checkpoint {damaged} is damaged: using the one before it", file=sys.stderr)
    if checkpoint is None:
        raise UserError(f"{arguments.run} has no complete checkpoint yet")
    found = probe(config.task, config.environment)
    environment = dataclasses.replace(config.environment, gl=found.gl)
    config = dataclasses.replace(config, environment=environment)
    torch.set_num_threads(learner_threads(config))
    evaluator = Evaluator(config, Policy.from_checkpoint(config, checkpoint, arguments.seed))
    records: list[dict[str, Any]] = []
    for place, angle in enumerate(arguments.rotation):
        report = evaluator.evaluate(
            checkpoint.state["weights_version"],
            None,
            arguments.episodes,
            angle,
            arguments.rotation_per_episode,
            arguments.seed,
            record=FILMED_EPISODES if arguments.video and place == 0 else 0,
        )
        if report.frames:
            write_video(arguments.video, side_by_side(report.frames), fps=frames_per_second(config.environment))
        records.append(_record(report, checkpoint.state))
    evaluator.close()
    if arguments.json:
        print(json.dumps(records if len(records) > 1 else records[0]))
    else:
        Console().print(_table(records, str(arguments.run)))
    return 0


def _validate(arguments: EvaluateArguments) -> None:
    if not 1 <= arguments.episodes <= 10_000:
        raise UserError(f"--episodes must be between 1 and 10000, not {arguments.episodes}")
    if not arguments.rotation:
        raise UserError("--rotation needs at least one angle; 0 leaves images as they are")
    for angle in arguments.rotation:
        if not 0 <= angle <= 180:
            raise UserError(f"--rotation must be between 0 and 180 degrees, not {angle}")
    if arguments.seed < 0:
        raise UserError(f"--seed must be zero or more, not {arguments.seed}")
    if arguments.video and not Path(arguments.video).parent.is_dir():
        raise UserError(f"--video {arguments.video}: there is no folder {Path(arguments.video).parent}")
    if arguments.video and Path(arguments.video).suffix not in (".mp4", ".gif"):
        raise UserError(f"--video must end in .mp4 or .gif, not {Path(arguments.video).name!r}")


def _record(report: EvaluationReport, state: dict[str, Any]) -> dict[str, Any]:
    """One evaluation with the keys of evaluations.jsonl."""
    return {
        "env_steps": state["env_steps"],
        "updates": state["updates"],
        "weights_version": report.weights_version,
        "returns": report.returns,
        "mean": float(np.mean(report.returns)),
        "rotation_degrees": report.rotation_degrees,
        "wall_seconds": report.wall_seconds,
    }


def _table(records: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table(title=f"{title}: {records[0]['env_steps']:,} environment steps", title_justify="left")
    for column in ("rotation", "episodes", "mean", "std", "lowest", "highest"):
        table.add_column(column, justify="right")
    for record in records:
        returns = np.asarray(record["returns"])
        figures = (returns.mean(), returns.std(), returns.min(), returns.max())
        table.add_row(f"±{record['rotation_degrees']:g}°", str(len(returns)), *(f"{figure:.1f}" for figure in figures))
    return table
