"""`dreamfleet monitor` short of Prometheus itself, and the pictures' bad input."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from cluster.main import main
from cluster.monitoring import targets
from tests.cluster.commands import REPOSITORY, command, one_line_and_exit_2
from tests.free_port import free_port


def going_on(folder: Path, name: str) -> Path:
    """A run folder with a target."""
    path = folder / name / "metrics_target.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"targets": [f"{name}:1"], "labels": {"run": name}}]))
    return path


def test_runs_are_found_up_to_three_levels_down_and_once(tmp_path: Path) -> None:
    going_on(tmp_path, "near")
    going_on(tmp_path / "studies" / "one" / "runs", "deep")
    going_on(tmp_path / "a" / "b" / "c" / "d", "too_deep")
    found = [target["labels"]["run"] for target in targets.find([tmp_path, tmp_path / "near", tmp_path / "studies"])]
    assert sorted(found) == ["deep", "near"]


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", "null"])
def test_a_file_that_is_no_target_is_passed_over(tmp_path: Path, content: str) -> None:
    going_on(tmp_path, "well")
    going_on(tmp_path, "broken").write_text(content)
    assert [target["labels"]["run"] for target in targets.find([tmp_path])] == ["well"]


def test_the_list_follows_the_runs(tmp_path: Path) -> None:
    first, out = going_on(tmp_path / "runs", "first"), tmp_path / "monitoring"
    args = ["monitor", str(tmp_path / "runs"), "--out", str(out), "--no-start"]
    with subprocess.Popen(command(args), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert names(out, 1) == ["first"]
            going_on(tmp_path / "runs", "second")
            assert names(out, 2) == ["first", "second"]
            first.unlink()
            assert names(out, 1) == ["second"]
        finally:
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert "runs: first, second" in text
    assert "scrape_configs" in (out / "prometheus.yml").read_text()


def names(out: Path, count: int) -> list[str]:
    """The runs in the list once they are so many."""
    path, deadline = out / "targets" / "runs.json", time.monotonic() + 300
    while time.monotonic() < deadline:
        found = json.loads(path.read_text()) if path.exists() else []
        if len(found) == count:
            return [target["labels"]["run"] for target in found]
        time.sleep(0.1)
    raise TimeoutError(path.read_text() if path.exists() else "no list")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_prometheus_ends_with_its_monitor(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "runs").mkdir()
    args = ["monitor", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--port", str(free_port())]
    with subprocess.Popen(
        command(args), cwd=REPOSITORY, stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN)
    ) as process:
        log, deadline = tmp_path / "out" / "prometheus.log", time.monotonic() + 300
        while not (log.exists() and "Server is ready" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        children = psutil.Process(process.pid).children()
        process.send_signal(number)
        process.communicate(timeout=600)
    assert process.returncode == 0
    assert children
    assert not any(child.is_running() for child in children)
    assert "See you next time" in log.read_text()


def test_without_prometheus_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "runs").mkdir()
    capsys.readouterr()

    assert main(["monitor", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "apt-get install prometheus" in err
    assert (tmp_path / "out" / "alerts.yml").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = one_line_and_exit_2(["monitor", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")], capsys)
    assert "no such folder" in line
    assert not (tmp_path / "out").exists()


def test_a_port_that_is_taken_ends_in_one_line(tmp_path: Path) -> None:

    (tmp_path / "runs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        args = ["monitor", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--port", port]
        result = subprocess.run(command(args), cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 2
    assert f"is port {port} taken?" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--dashboard", "nothing"], "unknown dashboard 'nothing'"),
        (["--hours", "0"], "--hours must be positive"),
        (["--hours", "nan"], "--hours must be positive"),
        ([], "no Prometheus answers there"),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_line(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    line = one_line_and_exit_2(["plot", "--prometheus", url, *args, "--out", str(tmp_path / "x.png")], capsys)
    assert says in line


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[", "file:///etc/passwd"])
def test_a_url_that_is_none_is_one_clear_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no Prometheus answers there" in one_line_and_exit_2(["plot", "--prometheus", url], capsys)


def test_curves_of_no_run_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run folder" in one_line_and_exit_2(["plot"], capsys)
