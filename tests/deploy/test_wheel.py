"""The wheel, with which the code reaches a cluster's nodes: it holds everything, and works where no checkout is."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc")
PACKED = ["common", "replay_service", "learner", "actors", "cluster", "deploy"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools leaves files beside what it builds."""
    source = tmp_path_factory.mktemp("source")
    for folder in [*PACKED, "tests", "docs"]:
        shutil.copytree(ROOT / folder, source / folder, ignore=NOT_CODE)
    for file in ["pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / file, source)
    out = tmp_path_factory.mktemp("dist")
    pip("wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(out))
    (built,) = out.glob("*.whl")
    return built


def pip(*args: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--quiet", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_file_of_the_packages_and_of_deploy_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in PACKED
        for inside, _, files in os.walk(ROOT / folder, followlinks=True)
        for path in (Path(inside) / file for file in files)
        if path.suffix != ".pyc" and (folder != "deploy" or path.suffix not in ("", ".md", ".dockerignore"))
    }
    assert held == wanted


@pytest.mark.slow
def test_it_trains_and_has_what_it_is_monitored_with_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment that sees the dependencies of this one, but not this checkout."""
    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    pip(
        "--python",
        str(environment / "bin/python"),
        "install",
        "--no-deps",
        "--no-index",
        "--ignore-installed",
        str(wheel),
    )

    def run(*command: str) -> str:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [environment / "bin" / command[0], *command[1:]],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run("python", "-c", "import common, cluster, deploy; print(common.__file__, *deploy.__path__)")
    assert str(ROOT) not in where
    monitoring = (
        "from cluster.monitoring.files import DASHBOARDS, PROMETHEUS as p; print(*DASHBOARDS.iterdir(), *p.iterdir())"
    )
    assert {"overview.json", "alerts.yml", "prometheus.yml"} <= {
        Path(file).name for file in run("python", "-c", monitoring).split()
    }
    run("dreamfleet", "train", "--preset", "smoke", "--device", "cpu", "--run-dir", "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]
    run("dreamfleet", "plot", "run", "--out", "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0
