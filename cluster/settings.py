"""Resolves a configuration: preset, then file, then flags; and holds it against the run it is to resume."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from actors.tasks import DREAMER_TASKS
from cluster.flags import parse
from cluster.validation import choose, flag, leaves, validate
from common.config import Config
from common.config_io import load_config
from common.errors import UserError
from common.presets import PRESETS, adapted
from learner.behaviors import BEHAVIORS

MAY_CHANGE_ON_RESUME = {
    "env_steps",
    "actors",
    "actors_min",
    "actors_max",
    "envs_per_actor",
    "learners",
    "device",
    "precision",
    "compile",
    "replay_on_device",
    "ray_address",
    "ray_placement",
    "redis_url",
    "redis_timeout",
    "eval_every",
    "eval_episodes",
    "final_eval_episodes",
    "eval_rotation",
    "keep_at",
    "metrics_port",
    "metrics_host",
    "acting.threads",
    "environment.gl",
    "environment.hang_seconds",
    "replay.sync",
    "replay.sync_seconds",
    "training.checkpoint_every",
    "training.learner_threads",
}


@dataclass(frozen=True)
class TrainArguments:
    """Trains a world-model agent from pixels; the same command on an existing run folder resumes it."""

    settings: Annotated[Config, tyro.conf.arg(name="")]
    run_dir: Path
    """Run folder: made if it is not there, resumed if it is."""
    config: str = ""
    """YAML file whose values replace the preset's; flags come on top."""
    redis_password_file: str = ""
    """File with the password of the Redis servers, instead of DREAMFLEET_REDIS_PASSWORD; written nowhere."""
    dry_run: bool = False
    """Print the resolved configuration and stop."""


def _about(name: str) -> str:
    """An algorithm's help: the first paragraph of its class's docstring, two lines that name its paper."""
    about = (inspect.getdoc(BEHAVIORS[name]) or "").partition("\n\n")[0]
    return f"  {name:<16} " + about.replace("\n", f"\n  {'':<16} ")


# tyro shows the class's docstring above the flags.
TrainArguments.__doc__ = "\n\n".join(
    (
        TrainArguments.__doc__ or "",
        "Algorithms:\n" + "\n".join(_about(name) for name in BEHAVIORS),
        f"Dreamer's tasks: {', '.join(DREAMER_TASKS)}.",
    )
)


def parse_train(args: Sequence[str]) -> TrainArguments:
    """The arguments of `dreamfleet train`, validated.

    Raises:
        UserError: a flag, a value or the configuration file is not as it must be.
    """
    base = resolve_base(args)
    default = TrainArguments(settings=base, run_dir=tyro.MISSING)
    arguments = parse(TrainArguments, "train", args, default)
    validate(arguments.settings)
    return arguments


def resolve_base(args: Sequence[str]) -> Config:
    """What flags start from: the preset as it is for --algorithm and --replay-store, overlaid by --config."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--preset", default="")
    early.add_argument("--config", default="")
    early.add_argument("--algorithm", default="")
    early.add_argument("--replay-store", default="")
    try:
        known, _ = early.parse_known_args(list(args))
    except argparse.ArgumentError as error:
        raise UserError(f"{error} (see dreamfleet train --help)") from None
    file = Path(known.config) if known.config else None
    if file is not None and not file.is_file():
        raise UserError(f"--config {file} is not a file")
    preset = known.preset or (load_config(file).preset if file is not None else "paper")
    choose("preset", preset, PRESETS)
    base = PRESETS[preset]()
    named = load_config(file, base) if file is not None else base
    algorithm = known.algorithm or named.algorithm
    store = known.replay_store or named.replay_store
    base = adapted(dataclasses.replace(base, algorithm=algorithm, replay_store=store))
    return dataclasses.replace(load_config(file, base), preset=preset) if file is not None else base


def changes_on_resume(saved: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    """What a resumed run's configuration changes, old and new value by dotted name.

    Raises:
        UserError: something that must stay as it was has changed; names the field and both values.
    """
    before, after = dict(leaves(saved)), dict(leaves(wanted))
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    for name, values in changed.items():
        if name not in MAY_CHANGE_ON_RESUME:
            old, new = ("''" if value == "" else value for value in values)
            raise UserError(
                f"the run folder was begun with {flag(name)} {old}, not {new}: give the same value to resume it, "
                "or another --run-dir"
            )
    return changed


def as_record(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Changes as one JSON value."""
    return {name: {"from": old, "to": new} for name, (old, new) in changes.items()}
