"""Resolves a configuration: preset, then file, then flags; and holds it against the run it is to resume."""

from __future__ import annotations

import argparse
import dataclasses
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
from common.presets import PRESETS

MAY_CHANGE_ON_RESUME = {
    "env_steps",
    "actors",
    "envs_per_actor",
    "device",
    "ray_address",
    "eval_every",
    "eval_episodes",
    "final_eval_episodes",
    "eval_rotation",
    "keep_at",
    "environment.gl",
    "environment.hang_seconds",
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
    dry_run: bool = False
    """Print the resolved configuration and stop."""


# tyro shows the class's docstring above the flags.
TrainArguments.__doc__ = f"{TrainArguments.__doc__}\n\nDreamer's tasks: {', '.join(DREAMER_TASKS)}."


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
    """The configuration that flags start from: that of --preset, overlaid by that of --config."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--preset", default="")
    early.add_argument("--config", default="")
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
    return dataclasses.replace(load_config(file, base), preset=preset) if file is not None else base


def changes_on_resume(saved: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    """What a resumed run's configuration changes, old and new value by dotted name.

    Raises:
        UserError: something that must stay as it was has changed; names the field and both values.
    """
    before, after = dict(leaves(saved)), dict(leaves(wanted))
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    for name, (old, new) in changed.items():
        if name not in MAY_CHANGE_ON_RESUME:
            raise UserError(
                f"the run folder was begun with {flag(name)} {old}, not {new}: give the same value to resume it, "
                "or another --run-dir"
            )
    return changed


def as_record(changes: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Changes as one JSON value."""
    return {name: {"from": old, "to": new} for name, (old, new) in changes.items()}
