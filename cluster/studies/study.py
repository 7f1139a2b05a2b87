"""The study file, read as strictly as a configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.config_io import merge, read_yaml
from common.errors import UserError

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Axis:
    """One number that runs through several values, each a run of its own: the figure's horizontal axis."""

    label: str = ""
    """Its name in the report."""
    fields: tuple[str, ...] = ()
    """Dotted configuration fields that all take the value (`horizon`, `planet.horizon`)."""
    values: tuple[Any, ...] = ()
    """Its values, numbers."""


@dataclass(frozen=True)
class ReportSettings:
    """What the report tabulates."""

    env_steps: tuple[int, ...] = ()
    """Environment steps at which to compare; none: at the end."""
    rotations: tuple[float, ...] = ()
    """Evaluation angles in degrees; none: all that are evaluated."""
    published: Literal["none", "dreamer", "idm"] = "none"
    """Whose published numbers stand beside ours: Dreamer's, or those of the IDM paper's table of the same angle."""


@dataclass(frozen=True)
class Study:
    """A grid of runs and its report."""

    title: str = ""
    """Heading of the report."""
    source: str = ""
    """What is reproduced, or why the study is made."""
    preset: str = "paper"
    """Where every run's configuration starts."""
    tasks: tuple[str, ...] = ()
    """Tasks as `dreamfleet train --task` takes them."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Names, and what each changes in the configuration."""
    seeds: tuple[int, ...] = ()
    """A run for each."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What all runs change in the preset."""
    axis: Axis = field(default_factory=Axis)
    """For a study over a number other than environment steps."""
    restart: Literal["auto", "anew", "resume"] = "auto"
    """What becomes of a run that was interrupted. anew: it begins again in an empty folder, which for `runtime: inline`
    gives the very numbers of an uninterrupted run. resume: it goes on from its checkpoint and its replay, which loses
    less and is not the same run to the last bit. auto: anew for inline, resume for ray."""
    report: ReportSettings = field(default_factory=ReportSettings)
    """What to tabulate."""
    then: str = ""
    """What to do with the runs next, in the report's last section."""


def load_study(path: Path) -> Study:
    """The study in a YAML file.

    Raises:
        UserError: it is no study; the line names the file, the dotted key and the nearest right one.
    """
    mapping = read_yaml(path)
    try:
        study = merge(mapping, Study())
        _check(study)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return study


def _check(study: Study) -> None:
    if not study.title:
        raise UserError("title: a study needs one")
    for name in ("tasks", "variants", "seeds"):
        values = getattr(study, name)
        if not values:
            raise UserError(f"{name}: a study needs at least one")
        _refuse_repeats(name, tuple(values))
    for name in study.variants:
        if not _NAME.fullmatch(name):
            raise UserError(f"variants: {name!r} is to name a folder: letters, digits, '_', '-', '+' and '.'")
    axis = study.axis
    if bool(axis.fields) != bool(axis.values):
        raise UserError("axis: give fields and values, or neither")
    for index, value in enumerate(axis.values):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"axis.values[{index}]: {value!r} is no number")
    _refuse_repeats("axis.values", axis.values)
    _refuse_repeats("report.env_steps", study.report.env_steps)
    _refuse_repeats("report.rotations", study.report.rotations)
    if axis.fields and study.report.published != "none":
        raise UserError("report.published: nothing published goes with an axis")


def _refuse_repeats(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError(f"{name}: {value} stands there twice")
