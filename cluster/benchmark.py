"""`dreamfleet benchmark`: measures one part against its limit."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from actors.rendering import probe
from cluster.benchmarks import actors, learner, replay, system
from cluster.flags import parse
from cluster.runtimes.roles import Setting
from cluster.settings import resolve_base
from cluster.train import resolve_device
from cluster.validation import validate
from common.config import Config
from common.cores import usable_cores
from common.errors import UserError

ENDLESS_STEPS = 10**12


@dataclass(frozen=True)
class BenchmarkArguments:
    """Measures one part of the system against its limit; figures are medians of interleaved rounds."""

    what: Annotated[Literal["actors", "replay", "learner", "system"], tyro.conf.Positional]
    """The part."""
    settings: Annotated[Config, tyro.conf.arg(name="")]
    config: str = ""
    """YAML file whose values replace the preset's."""
    json: bool = False
    """Print JSON."""
    rounds: int = 5
    """Rounds of which medians are taken (actors, replay, learner)."""
    processes: int = 0
    """actors: processes at once; 0 is one a core."""
    updates: int = 10
    """learner: updates in a round."""
    seconds: float = 60.0
    """system: how long to measure."""
    recorded_frames: bool = False
    """system: ready-made frames in the place of rendering."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    base = resolve_base(args)
    default = BenchmarkArguments(what=tyro.MISSING, settings=base)
    arguments = parse(BenchmarkArguments, "benchmark", args, default)
    validate(arguments.settings)
    for name, value in (("rounds", arguments.rounds), ("updates", arguments.updates), ("seconds", arguments.seconds)):
        if not 1 <= value <= 100_000:
            raise UserError(f"--{name} must be between 1 and 100000, not {value}")
    if not 0 <= arguments.processes <= 1024:
        raise UserError(f"--processes must be between 0 and 1024, not {arguments.processes}")
    config = arguments.settings
    if arguments.recorded_frames:
        config = dataclasses.replace(config, task=system.READY_FRAMES)
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(arguments, config, Path(folder))
    if arguments.json:
        print(json.dumps(figures))
    else:
        _print(arguments.what, figures)
    return 0


def _measure(arguments: BenchmarkArguments, config: Config, folder: Path) -> dict[str, Any]:
    found = probe(config.task, config.environment)
    setting = Setting(config, found.action_size, found.gl, folder / "replay", resolve_device(config))
    match arguments.what:
        case "actors":
            return actors.measure(setting, arguments.processes or max(1, math.floor(usable_cores())), arguments.rounds)
        case "replay":
            return replay.measure(setting, arguments.rounds)
        case "learner":
            return learner.measure(config, found.action_size, setting.device, arguments.updates, arguments.rounds)
        case "system":
            quiet = dataclasses.replace(config, env_steps=ENDLESS_STEPS, eval_every=0, final_eval_episodes=1)
            return system.measure(dataclasses.replace(setting, config=quiet), arguments.seconds)


def _print(what: str, figures: dict[str, Any]) -> None:
    table = Table(title=f"benchmark {what}", title_justify="left", show_header=False)
    for name, value in figures.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        table.add_row(name, ", ".join(f"{key} {_figure(part)}".strip() for key, part in parts))
    Console().print(table)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
