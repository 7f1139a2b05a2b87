"""The configuration and the alert rules, by Prometheus' own tool; and that every alert is tested and explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.monitoring.files import PROMETHEUS
from cluster.telemetry.catalogue import METRICS, PREFIX

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
)
def test_promtool_is_content(command: list[str]) -> None:
    result = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_rule_that_means_something_else_is_noticed(tmp_path: Path) -> None:
    rules = (PROMETHEUS / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(
        rules.replace("dreamfleet_weights_lag_seconds > 120", "dreamfleet_weights_lag_seconds > 12000")
    )
    (tmp_path / "alerts_test.yml").write_bytes((PROMETHEUS / "alerts_test.yml").read_bytes())
    command = ["promtool", "test", "rules", "alerts_test.yml"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 1


def alerts() -> dict[str, str]:
    """Each alert's expression by its name."""
    content = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    return {rule["alert"]: rule["expr"] for group in content["groups"] for rule in group["rules"]}


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_tested_where_it_fires_and_where_it_does_not(name: str) -> None:
    content = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())
    cases = [case for test in content["tests"] for case in test["alert_rule_test"] if case["alertname"] == name]
    assert any(case.get("exp_alerts") for case in cases)
    assert any(not case.get("exp_alerts") for case in cases)


@pytest.mark.parametrize("name", alerts())
def test_every_alert_asks_for_metrics_that_there_are(name: str) -> None:
    for asked in re.findall(rf"{PREFIX}(\w+)", alerts()[name]):
        assert asked in METRICS


@pytest.mark.parametrize("name", [*alerts(), *(PREFIX + name for name in METRICS)])
def test_every_alert_and_every_metric_is_explained(name: str) -> None:
    assert f"`{name}`" in (REPOSITORY / "docs" / "operations.md").read_text()
