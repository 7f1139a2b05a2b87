"""Published scores that learning curves are compared with; the files tell where each came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

_BASELINES = {"d4pg_100m": "D4PG at 100 M", "planet_1e6": "PlaNet at 1 M", "slac_3e6": "SLAC at 3 M"}
_IDM_TABLES = {0.0: "table_2_no_rotation", 5.0: "table_1_rotation_5_degrees"}
_IDM_NAMES = {"idm": "IDM", "dreamer": "Dreamer (IDM paper)", "drq": "DrQ"}


@dataclass(frozen=True)
class PublishedCurve:
    """Mean returns of one agent on one task at several environment steps; a single one is a level to compare with.

    Attributes:
        label: the agent, for a legend.
        env_steps: environment steps, ascending; empty for a level that was reached far outside our budgets.
        mean: mean return over seeds, one for each of `env_steps`, or one for a level.
    """

    label: str
    env_steps: tuple[float, ...]
    mean: tuple[float, ...]


def published_curves(task: str, rotation: float, algorithms: set[str]) -> list[PublishedCurve]:
    """What was published on a task that the plotted runs can be held against; empty for a task outside the papers.

    Dreamer's curve and the levels of agents that learn from pixels belong to unrotated evaluation; A3C is left out,
    because it saw joint angles instead of images. The IDM paper's table without rotation joins where IDM is plotted;
    its table of 5 degrees is all there is for that angle.

    Args:
        task: DMControl task, `domain_task`.
        rotation: evaluation angle in degrees.
        algorithms: those of the plotted runs.
    """
    curves = []
    if rotation == 0:
        dreamer = _read("dreamer_v1.json")
        if task in dreamer["dreamer"]:
            scores = dreamer["dreamer"][task]
            curves.append(PublishedCurve("Dreamer", tuple(scores["env_steps"]), tuple(scores["mean"])))
        levels = dreamer["baselines"].get(task, {})
        curves += [PublishedCurve(label, (), (levels[key],)) for key, label in _BASELINES.items() if key in levels]
    if rotation in _IDM_TABLES and (rotation or "idm" in algorithms):
        idm = _read("idm.json")
        for name, scores in idm[_IDM_TABLES[rotation]].get(task, {}).items():
            curves.append(PublishedCurve(_IDM_NAMES[name], tuple(idm["env_steps"]), tuple(mean for mean, _ in scores)))
    return curves


class PublishedScore(NamedTuple):
    """A number of a paper's table.

    Attributes:
        agent: whose it is, for a table's heading.
        mean: mean return over seeds.
        std: standard deviation over seeds; none where none was published.
    """

    agent: str
    mean: float
    std: float | None


def published_scores(paper: str, task: str, rotation: float, env_steps: int) -> list[PublishedScore]:
    """What a paper tells of a task at exactly this angle and number of environment steps; often nothing.

    Args:
        paper: `idm`, its table 1 (5°) or 2 (0°); or `dreamer`, its curve, and beside it what other agents reached far
            later.
        task: DMControl task, `domain_task`.
        rotation: evaluation angle in degrees.
        env_steps: environment steps.
    """
    if paper == "idm":
        tables = _read("idm.json")
        if rotation not in _IDM_TABLES or env_steps not in tables["env_steps"]:
            return []
        at = tables["env_steps"].index(env_steps)
        rows = tables[_IDM_TABLES[rotation]].get(task, {})
        return [PublishedScore(_IDM_NAMES[agent], *scores[at]) for agent, scores in rows.items()]
    dreamer = _read("dreamer_v1.json")
    curve = dreamer["dreamer"].get(task)
    if rotation or curve is None or env_steps not in curve["env_steps"]:
        return []
    at = curve["env_steps"].index(env_steps)
    levels = dreamer["baselines"].get(task, {})
    return [
        PublishedScore("Dreamer", curve["mean"][at], curve["std"][at]),
        *(PublishedScore(name, levels[key], None) for key, name in _BASELINES.items() if key in levels),
    ]


def _read(name: str) -> dict[str, Any]:
    return json.loads((resources.files("cluster") / "references" / name).read_text(encoding="utf-8"))
