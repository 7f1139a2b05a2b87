"""From a study to its cells: one validated configuration and one run folder each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.rendering import probe
from actors.tasks import DREAMER_TASKS
from cluster.settings import MAY_CHANGE_ON_RESUME
from cluster.studies.study import Study
from cluster.validation import choose, leaves, validate
from common.config import Config
from common.config_io import merge
from common.errors import UserError
from common.presets import PRESETS, adapted

MAY_CHANGE = MAY_CHANGE_ON_RESUME - {"eval_every", "eval_episodes", "final_eval_episodes", "eval_rotation"}
"""What a study may change once it has begun: what is measured, and how, is not among it."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        variant: its name in the study.
        x: the axis' value; none in a study without an axis.
        config: all that the run computes; task and seed are its own.
        anew: whether it begins again once it was interrupted, rather than going on.
    """

    variant: str
    x: float | None
    config: Config
    anew: bool

    @property
    def name(self) -> str:
        """task/variant[/axis value]/seed, which is also where the run lies below `runs/`."""
        task = self.config.task.replace(":", ".")
        at = () if self.x is None else (f"{self.x:g}",)
        return "/".join((task, self.variant, *at, f"seed_{self.config.seed}"))

    def folder(self, out: Path) -> Path:
        """The run folder."""
        return out / "runs" / self.name

    def desk(self, out: Path) -> Path:
        """Where the study keeps what it needs to run it: configuration, output, lock."""
        return out / "cells" / self.name


def cells(study: Study) -> list[Cell]:
    """All runs of the study, by task, variant, axis value and seed.

    Raises:
        UserError: a run's configuration is impossible; the line names the field in the study, or the run.
    """
    choose("preset", study.preset, PRESETS)
    _refuse_own_fields("settings", study.settings)
    for variant, changes in study.variants.items():
        _refuse_own_fields(f"variants.{variant}", changes)
    grid = []
    for task in study.tasks:
        for variant in study.variants:
            for x in study.axis.values or (None,):
                for seed in study.seeds:
                    config = _configuration(study, task, variant, x, seed)
                    anew = study.restart == "anew" or (study.restart == "auto" and config.runtime == "inline")
                    cell = Cell(variant, x, config, anew)
                    try:
                        validate(cell.config)
                    except UserError as error:
                        raise UserError(f"{cell.name}: {error}") from None
                    grid.append(cell)
    for cell in grid:
        _validate_report(study, cell.config)
    return grid


def check_tasks(grid: list[Cell]) -> None:
    """Builds every task that is not among Dreamer's once, in a process of its own.

    Raises:
        UserError: there is no such task, or it cannot be built.
    """
    for task, environment in {cell.config.task: cell.config.environment for cell in grid}.items():
        if task not in DREAMER_TASKS:
            probe(task, environment)


def refuse_another_study(old: Study, new: Study) -> None:
    """Raises UserError, naming the difference, unless the new study's runs are the old one's and perhaps more."""
    before, after = ({cell.name: cell for cell in cells(study)} for study in (old, new))
    for choice in ("preset", "restart"):
        if getattr(old, choice) != getattr(new, choice):
            raise UserError(f"{choice} was {getattr(old, choice)}, not {getattr(new, choice)}")
    if old.axis.fields != new.axis.fields:
        raise UserError(f"axis.fields was {list(old.axis.fields)}, not {list(new.axis.fields)}")
    for name, cell in before.items():
        if name not in after:
            raise UserError(f"it has a run {name}, which is left out now")
        fields = dict(leaves(after[name].config))
        for field, value in leaves(cell.config):
            if fields[field] != value and field not in MAY_CHANGE:
                raise UserError(f"{name} was begun with {field}: {value}, not {fields[field]}")
        if cell.config.env_steps != after[name].config.env_steps and cell.anew:
            raise UserError(
                f"{name} was begun with env_steps: {cell.config.env_steps}, not {after[name].config.env_steps}, and "
                "its runs are not resumed (restart)"
            )


def _configuration(study: Study, task: str, variant: str, x: float | None, seed: int) -> Config:
    """Preset, then the algorithm's own settings, the study's, the variant's, the axis' value."""
    changes = study.variants[variant]
    base = PRESETS[study.preset]()
    algorithm = changes.get("algorithm", study.settings.get("algorithm", base.algorithm))
    config = adapted(dataclasses.replace(base, algorithm=algorithm))
    config = merge(study.settings, config, "settings.")
    config = merge(changes, config, f"variants.{variant}.")
    for field in study.axis.fields:
        value: Any = x
        for key in reversed(field.split(".")):
            value = {key: value}
        config = merge(value, config, "axis.")
    return dataclasses.replace(config, task=task, seed=seed)


def _refuse_own_fields(name: str, changes: Mapping[str, Any]) -> None:
    for field in ("task", "seed", "preset"):
        if field in changes:
            raise UserError(f"{name}.{field}: the study's own {field if field == 'preset' else field + 's'} say it")


def _validate_report(study: Study, config: Config) -> None:
    for rotation in study.report.rotations:
        if rotation not in config.eval_rotation:
            raise UserError(
                f"report.rotations: nothing is evaluated at {rotation:g} degrees: settings.eval_rotation is "
                f"{[f'{angle:g}' for angle in config.eval_rotation]}"
            )
    for steps in study.report.env_steps:
        if not 0 <= steps <= config.env_steps:
            raise UserError(f"report.env_steps: {steps} is not within the runs' {config.env_steps} environment steps")
