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
from cluster.benchmarks import actors, learner, replay, scale, system, update_profile
from cluster.benchmarks.crowd import PROCESSES, SEATS
from cluster.flags import parse
from cluster.redis_access import check_servers, new_prefix, read_password
from cluster.runtimes.roles import Setting
from cluster.settings import resolve_base
from cluster.train import resolve_device
from cluster.validation import validate
from common.config import Config
from common.cores import usable_cores
from common.errors import UserError

ENDLESS_STEPS = 10**12
MOST_SIMULATED = 4096


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
    """actors: processes at once; 0 is one a core. system with simulated actors: how many they share; 0 is one for each
    32, at most 8."""
    updates: int = 10
    """learner: updates in a round."""
    profile: str = ""
    """learner: folder for a table of where the time of an update goes, part by part, and a Chrome trace, instead of the
    benchmark's figures."""
    seconds: float = 60.0
    """system: how long to measure."""
    recorded_frames: bool = False
    """system: ready-made frames in the place of rendering."""
    simulate_actors: int = 0
    """system: so many collectors in a few processes, on ready-made frames and without policies, instead of --actors:
    where do shards, weights or the coordinator saturate? (docs/scaling.md)"""
    simulated_speed: float = 100.0
    """system: environment steps a second of one simulated actor, about what a core draws in software; 0: as many as it
    can."""


def main(args: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    base = resolve_base(args)
    default = BenchmarkArguments(what=tyro.MISSING, settings=base)
    arguments = parse(BenchmarkArguments, "benchmark", args, default)
    validate(arguments.settings)
    if arguments.settings.offline:
        raise UserError("--offline is for training: every benchmark makes its own data")
    if arguments.settings.learners > 1:
        raise UserError("--learners is for training: benchmarks measure one learner")
    for name, value in (("rounds", arguments.rounds), ("updates", arguments.updates), ("seconds", arguments.seconds)):
        if not 1 <= value <= 100_000:
            raise UserError(f"--{name} must be between 1 and 100000, not {value}")
    if not 0 <= arguments.processes <= 1024:
        raise UserError(f"--processes must be between 0 and 1024, not {arguments.processes}")
    _refuse_impossible_fleet(arguments)
    if arguments.profile:
        _prepare_profile(arguments.what, Path(arguments.profile))
    config = arguments.settings
    if arguments.recorded_frames or arguments.simulate_actors:
        config = dataclasses.replace(config, task=system.READY_FRAMES)
    if arguments.simulate_actors:
        config = dataclasses.replace(config, actors=arguments.simulate_actors, actors_min=0, actors_max=0)
        validate(config)  # with so many, the limiter may need a larger prefill
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(arguments, config, Path(folder))
    if arguments.json:
        print(json.dumps(figures))
    elif arguments.profile:
        print(update_profile.as_markdown(figures), end="")
    else:
        _print(arguments.what, figures)
    return 0


def _prepare_profile(what: str, folder: Path) -> None:
    if what != "learner":
        raise UserError(f"--profile is for the learner: there is no profile of {what}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--profile {folder} cannot be made: {error.strerror}") from error


def _measure(arguments: BenchmarkArguments, config: Config, folder: Path) -> dict[str, Any]:
    found = probe(config.task, config.environment)
    password = read_password("") if config.replay_store == "redis" else ""
    if config.replay_store == "redis":
        check_servers(config, password)
        config = dataclasses.replace(config, redis_prefix=config.redis_prefix or new_prefix("benchmark"))
    setting = Setting(config, found.action_size, found.gl, folder / "replay", resolve_device(config), password)
    match arguments.what:
        case "actors":
            return actors.measure(setting, arguments.processes or max(1, math.floor(usable_cores())), arguments.rounds)
        case "replay":
            return replay.measure(setting, arguments.rounds)
        case "learner" if arguments.profile:
            out = Path(arguments.profile)
            return update_profile.measure(config, found.action_size, setting.device, arguments.updates, out)
        case "learner":
            return learner.measure(config, found.action_size, setting.device, arguments.updates, arguments.rounds)
        case "system":
            quiet = dataclasses.replace(config, env_steps=ENDLESS_STEPS, eval_every=0, final_eval_episodes=1)
            setting = dataclasses.replace(setting, config=quiet)
            if not arguments.simulate_actors:
                return system.measure(setting, arguments.seconds)
            processes = arguments.processes or min(PROCESSES, math.ceil(arguments.simulate_actors / SEATS))
            return scale.measure(setting, arguments.seconds, processes, arguments.simulated_speed)


def _refuse_impossible_fleet(arguments: BenchmarkArguments) -> None:
    """Raises UserError unless the simulated actors, if there are any, can be."""
    count = arguments.simulate_actors
    if not 0 <= count <= MOST_SIMULATED:
        raise UserError(f"--simulate-actors must be between 0 and {MOST_SIMULATED}, not {count}")
    if not 0 <= arguments.simulated_speed <= 1e6:
        raise UserError(f"--simulated-speed must be between 0 and 1000000, not {arguments.simulated_speed:g}")
    if not count:
        return
    if arguments.what != "system":
        raise UserError(f"--simulate-actors is for benchmark system, not {arguments.what}")
    if arguments.processes > count:
        raise UserError(f"--processes {arguments.processes} is more than --simulate-actors {count}")
    if arguments.settings.ray_address:
        raise UserError("--simulate-actors measures this machine: leave --ray-address out")


def _print(what: str, figures: dict[str, Any]) -> None:
    table = Table(title=f"benchmark {what}", title_justify="left", show_header=False)
    for name, value in figures.items():
        if name == "samples":
            continue  # --json has them
        parts = value.items() if isinstance(value, dict) else [("", value)]
        table.add_row(name, ", ".join(f"{key} {_figure(part)}".strip() for key, part in parts))
    Console().print(table)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
