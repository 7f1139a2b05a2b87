"""kill -STOP of the learner: a real Prometheus raises its alert, the run names who is waited for; CONT: both end."""

from __future__ import annotations

import math
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cluster.monitoring.prometheus import ask
from common.errors import UserError
from tests.cluster.commands import REPOSITORY, command
from tests.free_port import free_port
from tests.system.processes import Training
from tests.system.test_recovery import on

pytestmark = pytest.mark.slow

FIRING = 'ALERTS{alertname="DreamfleetLearnerStalled", alertstate="firing"}'


def hurry(out: Path) -> None:
    """Shortens the times of one alert, and of Prometheus; what it asks for stays what is shipped."""
    rules = yaml.safe_load((out / "alerts.yml").read_text())
    rule = next(rule for rule in rules["groups"][0]["rules"] if rule["alert"] == "DreamfleetLearnerStalled")
    assert (rule["expr"].count("> 300"), rule["expr"].count("[5m]"), rule["for"]) == (1, 1, "1m")
    rule |= {"expr": rule["expr"].replace("> 300", "> 10").replace("[5m]", "[20s]"), "for": "2s"}
    (out / "alerts.yml").write_text(yaml.safe_dump(rules))
    settings: dict[str, Any] = yaml.safe_load((out / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (out / "prometheus.yml").write_text(yaml.safe_dump(settings))


def test_a_learner_that_is_stopped_raises_the_alert_and_is_named_until_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    port, out = free_port(), tmp_path / "monitoring"
    url = f"http://127.0.0.1:{port}"

    def value(expression: str) -> float:
        try:
            result = ask(url, "query", query=expression)["result"]
        except UserError:
            return math.nan
        return float(result[0]["value"][1]) if result else math.nan

    args = ["monitor", str(tmp_path / "runs"), "--out", str(out), "--port", str(port)]
    with open(tmp_path / "monitor.txt", "w") as text:
        monitor = psutil.Popen(command(args), cwd=REPOSITORY, stdout=text, stderr=subprocess.STDOUT)
    training = Training(
        tmp_path / "runs" / "run",
        on("slow", "--env-steps", "1000000", "--eval-every", "0"),
        tmp_path / "log",
        TINY_STEP_SECONDS="0.01",
    )
    try:
        with training as run:

            def until(condition: Callable[[], bool]) -> None:
                run.until(condition, 300)

            until(lambda: value("vector(1)") == 1)
            hurry(out)
            for server in monitor.children():
                server.send_signal(signal.SIGHUP)
            # Ten seconds without an update, which raise it here, may have passed before the first one.
            until(lambda: value("dreamfleet_updates") > 0 and math.isnan(value(FIRING)))
            learner = run.role("Learner")
            assert learner is not None
            learner.suspend()
            until(lambda: value(FIRING) == 1)
            until(lambda: "learner has not come back from update for " in run.text)
            assert "learner is back" not in run.text
            stopped_at = value("dreamfleet_updates_total")
            learner.resume()
            until(lambda: "learner is back from update, after " in run.text)
            until(lambda: math.isnan(value(FIRING)) and value("dreamfleet_updates_total") > stopped_at)
            assert "died" not in run.text
    finally:
        monitor.send_signal(signal.SIGINT)
        monitor.wait(60)
