"""A real Prometheus, set up and started by `dreamfleet monitor`, watches real runs."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import pytest
import torch
import yaml

from cluster.main import main
from cluster.monitoring import dashboards
from cluster.monitoring.files import PROMETHEUS
from cluster.monitoring.prometheus import ask
from cluster.telemetry.catalogue import METRICS, PREFIX
from common.errors import UserError
from tests.cluster.commands import REPOSITORY, SMALL_RUN, command, one_line_and_exit_2
from tests.free_port import free_port
from tests.system.processes import Training

ENDLESS = ["--env-steps", "1000000", "--eval-every", "200"]
RAY_RUN = ["--preset", "smoke", "--device", "cpu", *ENDLESS]
INLINE_RUN = [*SMALL_RUN, *ENDLESS]


class Watched(NamedTuple):
    """Runs going on, and the Prometheus that watches them."""

    url: str
    runs: Path
    training: Training
    killed: Training

    def value(self, expression: str) -> float:
        """The one value of an expression now; NaN where there is none."""
        result = ask(self.url, "query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else math.nan


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run in the Ray runtime, one that will be killed, and their monitor."""
    folder = tmp_path_factory.mktemp("monitored")
    runs, port = folder / "runs", free_port()
    runs.mkdir()
    args = ["monitor", str(runs), "--out", str(folder / "monitoring"), "--port", str(port)]
    monitor = subprocess.Popen(
        command(args), cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with (
            Training(runs / "ray", RAY_RUN, folder / "ray.txt") as training,
            Training(runs / "killed", INLINE_RUN, folder / "killed.txt") as killed,
        ):
            seen = Watched(url, runs, training, killed)
            until(lambda: seen.value('sum(up{job="dreamfleet"})') == 2, training)
            yield seen
    finally:
        monitor.send_signal(signal.SIGINT)
        text, _ = monitor.communicate(timeout=600)
    assert monitor.returncode == 0, text
    assert "ray" in text


def until(condition: Callable[[], object], training: Training, seconds: float = 600.0) -> None:
    """Waits for a condition; what a Prometheus that is not up yet answers is none."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except UserError:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{training.text}"
        time.sleep(0.5)


def panels() -> Iterator[tuple[str, str]]:
    """Every expression of every dashboard, after where it stands."""
    for name in dashboards.names():
        for panel in dashboards.read(name, "ray").panels:
            for query in panel.queries:
                yield f"{name}: {panel.title}", query.expression


def test_every_expression_of_every_panel_gives_data(watched: Watched) -> None:
    without_gpu = {where for where, expression in panels() if "gpu" in expression and not torch.cuda.is_available()}
    missing: list[str] = []

    def all_there() -> bool:
        answers = {
            (where, expression): ask(watched.url, "query", query=expression)["result"] for where, expression in panels()
        }
        missing[:] = [
            f"{where}: {expression}"
            for (where, expression), result in answers.items()
            if not any(math.isfinite(float(series["value"][1])) for series in result) and where not in without_gpu
        ]
        return not missing

    try:
        until(all_there, watched.training)
    except AssertionError:
        assert not missing, "\n".join(missing)
        raise
    assert without_gpu == ({"learner: GPU"} if not torch.cuda.is_available() else set())


def test_every_alerts_expression_is_evaluated_and_none_fires(watched: Watched) -> None:
    rules = [
        rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]

    def evaluated() -> list[dict[str, Any]]:
        groups = ask(watched.url, "rules")["groups"]
        return [rule for group in groups for rule in group["rules"] if rule["health"] == "ok"]

    until(lambda: len(evaluated()) == len(rules), watched.training)
    assert {rule["name"] for rule in evaluated()} == {rule["alert"] for rule in rules}
    firing: dict[str, Any] = {}

    def quiet() -> bool:
        """Rates over a run's first moments mean nothing; a rule that fires without a reason goes on firing."""
        firing.clear()
        for rule in rules:
            if result := ask(watched.url, "query", query=rule["expr"])["result"]:
                firing[rule["alert"]] = result
        return not firing

    try:
        until(quiet, watched.training, seconds=180)
    except AssertionError:
        assert not firing
        raise


def test_every_metric_of_the_catalogue_is_scraped(watched: Watched) -> None:
    def missing() -> set[str]:
        names = set(ask(watched.url, "label/__name__/values"))
        expected = {PREFIX + name + ("_bucket" if m.kind == "histogram" else "") for name, m in METRICS.items()}
        return {name for name in expected - names if "gpu" not in name}

    until(lambda: not missing(), watched.training)


def test_prometheus_counts_what_the_run_counts(watched: Watched) -> None:
    target = json.loads((watched.runs / "ray" / "metrics_target.json").read_text())[0]
    folder = str((watched.runs / "ray").resolve())
    assert target["labels"] == {"run": "ray", "instance": folder, "__param_run": folder}
    before = watched.training.stored()
    until(lambda: watched.value('dreamfleet_env_steps_total{run="ray"}') > before, watched.training)
    steps = watched.value('dreamfleet_env_steps_total{run="ray"}')
    until(lambda: watched.training.stored() >= steps, watched.training)
    labels = 'dreamfleet_run_info{run="ray", task="cartpole_balance", algorithm="dreamer", runtime="ray"}'
    assert watched.value(labels) == 1


def test_telemetry_and_supervision_take_under_2_percent_of_the_cpu_time(watched: Watched) -> None:
    for run in ("ray", "killed"):
        for what in ("telemetry", "supervision"):
            cost = f'dreamfleet_{what}_cpu_seconds_total{{run="{run}"}}'
            share = watched.value(f"{cost} / on (run) sum by (run) (dreamfleet_cpu_seconds_total)")
            assert 0 < share < 0.02, (run, what)


def test_a_dashboard_is_drawn_from_what_prometheus_holds(
    watched: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plot", "--prometheus", watched.url, "--hours", "0.1", "--dashboard"]
    pictures = {}
    for name in ("overview", "learning"):
        assert main([*arguments, name, "--out", str(tmp_path / f"{name}.png"), "ray"]) == 0
        pictures[name] = imageio.imread(tmp_path / f"{name}.png")
        assert pictures[name].shape[1] > 1000
        assert pictures[name].std() > 10
    assert main([*arguments, "learning", "--out", str(tmp_path / "all.png")]) == 0
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "learning.png").read_bytes(), "a run more"
    line = one_line_and_exit_2([*arguments, "overview", "--out", str(tmp_path / "x.png"), "no_such_run"], capsys)
    assert "has no data of such runs" in line


def test_no_counter_goes_back_when_a_run_is_killed_and_resumed(watched: Watched) -> None:
    killed, up = watched.killed, 'up{run="killed"}'
    killed.until(lambda: killed.stored() > 600)
    before = watched.value('dreamfleet_updates_total{run="killed"}')
    killed.kill()
    assert (watched.runs / "killed" / "metrics_target.json").exists()
    until(lambda: watched.value(up) == 0, killed)
    until(lambda: watched.value('ALERTS{alertname="DreamfleetRunDied", run="killed"}') == 1, killed)
    with killed:
        until(lambda: watched.value(up) == 1, killed)
        until(lambda: watched.value('dreamfleet_updates_total{run="killed"}') > before, killed)
        for name, metric in METRICS.items():
            if metric.kind != "gauge":
                series = PREFIX + name + ("_bucket" if metric.kind == "histogram" else "")
                resets = ask(watched.url, "query", query=f'resets({series}{{run="killed"}}[10m])')["result"]
                assert resets, name
                assert {found["value"][1] for found in resets} == {"0"}, name
        killed.interrupt()
        assert killed.end() == 0
    assert not (watched.runs / "killed" / "metrics_target.json").exists(), "it ended as it should"
    until(lambda: math.isnan(watched.value(up)), killed)
