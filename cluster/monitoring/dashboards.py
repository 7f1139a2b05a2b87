"""Grafana's dashboards, as far as a picture of them needs."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from cluster.monitoring.files import DASHBOARDS


class Query(NamedTuple):
    """One expression of a panel and what its series are called, with {{label}} in the place of a label's value."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel.

    Attributes:
        title: its heading.
        unit: of its values, by Grafana's name.
        low: where its axis begins; None leaves that to the values.
        place: column, row, width and height in Grafana's grid of 24 columns.
        queries: what it shows.
    """

    title: str
    unit: str
    low: float | None
    place: tuple[int, int, int, int]
    queries: list[Query]


class Dashboard(NamedTuple):
    """A dashboard's title and its panels."""

    title: str
    panels: list[Panel]


def names() -> list[str]:
    """The dashboards that there are."""
    return sorted(path.stem for path in DASHBOARDS.glob("*.json"))


def read(name: str, runs: str = ".*") -> Dashboard:
    """A dashboard with its variable filled in.

    Args:
        name: one of `names`.
        runs: a regular expression for the runs' names, in the place of `$run`.
    """
    content = json.loads((DASHBOARDS / f"{name}.json").read_bytes())
    return Dashboard(content["title"], [_panel(panel, runs) for panel in content["panels"]])


def legend(template: str, labels: dict[str, str]) -> str:
    """What a series is called: `{{run}} median` → `first median`."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), template).strip()


def _panel(panel: dict[str, Any], runs: str) -> Panel:
    place, defaults = panel["gridPos"], panel["fieldConfig"]["defaults"]
    return Panel(
        panel["title"],
        defaults["unit"],
        defaults.get("min"),
        (place["x"], place["y"], place["w"], place["h"]),
        [Query(target["expr"].replace("$run", _quoted(runs)), target["legendFormat"]) for target in panel["targets"]],
    )


def _quoted(text: str) -> str:
    """Text within one of PromQL's string literals."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
