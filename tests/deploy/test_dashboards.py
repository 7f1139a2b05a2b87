"""The dashboards' JSON: what Grafana needs of it, and that it asks for what there is."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from cluster.monitoring import dashboards
from cluster.monitoring.files import DASHBOARDS
from cluster.monitoring.picture import FORMATS
from cluster.telemetry.catalogue import METRICS, PREFIX

NAMES = dashboards.names()
PROVISIONING = DASHBOARDS.parent / "provisioning"


def content(name: str) -> dict[str, Any]:
    return dict(json.loads((DASHBOARDS / f"{name}.json").read_text()))


def test_the_dashboards_are_these() -> None:
    assert NAMES == ["actors", "learner", "learning", "overview", "replay"]


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_what_grafana_needs(name: str) -> None:
    source = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    board = content(name)
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert board["uid"] == f"dreamfleet-{name}"
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) >= 1
        assert panel["fieldConfig"]["defaults"]["unit"] in FORMATS


@pytest.mark.parametrize("name", NAMES)
def test_panels_lie_beside_each_other(name: str) -> None:
    cells = [
        (column, row)
        for panel in dashboards.read(name).panels
        for x, y, width, height in [panel.place]
        for column in range(x, x + width)
        for row in range(y, y + height)
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24


@pytest.mark.parametrize("name", NAMES)
def test_expressions_ask_for_metrics_that_there_are_and_of_the_chosen_runs_alone(name: str) -> None:
    for panel in content(name)["panels"]:
        for target in panel["targets"]:
            asked = re.findall(rf"{PREFIX}(\w+)(\{{[^}}]*\}})?", target["expr"])
            assert asked
            for metric, labels in asked:
                assert metric.removesuffix("_bucket") in METRICS, panel["title"]
                assert 'run=~"$run"' in labels, panel["title"]


def test_every_metric_is_shown_somewhere_or_asked_for_by_an_alert() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS.glob("*.json"))
    text += (DASHBOARDS.parents[1] / "prometheus" / "alerts.yml").read_text()
    unseen = {name for name in METRICS if not re.search(rf"{PREFIX}{name}(_bucket)?\b", text)}
    assert unseen == {"replay_episodes", "replay_ratio"}


def test_a_variable_is_filled_in_and_series_are_named() -> None:
    board = dashboards.read("overview", r'a\.b|"c"')
    assert r'run=~"a\\.b|\"c\""' in board.panels[1].queries[0].expression
    assert dashboards.legend("{{run}} {{ role }} alive", {"run": "x", "role": "learner"}) == "x learner alive"
    assert dashboards.legend("{{nobody}}", {}) == ""
