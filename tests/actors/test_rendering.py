"""The OpenGL backend: chosen once, probed in a process of its own, failures told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors import rendering
from actors.rendering import configure, probe
from common.config import EnvironmentConfig
from common.errors import UserError

FAST = EnvironmentConfig(rendering="fast")
POPEN = subprocess.Popen


def hang(seconds: float = 3600.0) -> None:
    time.sleep(seconds)


@pytest.fixture
def no_choice_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)


@pytest.fixture
def broken_egl(no_choice_made: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No EGL vendor at all, as on a machine without libegl1's drivers."""
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_DIRS", str(tmp_path))


def test_probe_reports_what_draws(no_choice_made: None) -> None:
    report = probe("quadruped_walk", FAST)
    assert report.action_size == 12
    assert report.gl == "egl"
    assert report.renderer
    assert report.seconds > 0


def test_auto_falls_back_to_osmesa_when_egl_fails(broken_egl: None) -> None:
    report = probe("cartpole_balance", FAST)
    assert report.gl == "osmesa"
    assert not report.hardware


def test_failure_says_what_to_install(broken_egl: None) -> None:
    with pytest.raises(
        UserError, match=r"no OpenGL backend draws cartpole_balance \(egl: .*libegl1.*libosmesa6"
    ) as error:
        probe("cartpole_balance", EnvironmentConfig(gl="egl"))
    assert "\n" not in str(error.value)


def test_hanging_backend_counts_as_failing_after_the_time_limit(
    no_choice_made: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A probe that sleeps stands for a driver that hangs in its first frame.
    monkeypatch.setattr(rendering.subprocess, "Popen", lambda command, **io: POPEN(["/bin/sleep", "3600"], **io))
    with pytest.raises(UserError, match=r"egl: no frame within 0.2 s; osmesa: no frame within 0.2 s"):
        probe("cartpole_balance", FAST, timeout=0.2)


def test_hanging_factory_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot be built \(auto: no frame within 2 s"):
        probe("tests.actors.test_rendering:hang", FAST, timeout=2)


def test_mujoco_gl_narrows_auto(no_choice_made: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_ask", lambda *_: {"action_size": 1, "renderer": "llvmpipe"})
    assert probe("cartpole_balance", FAST).gl == "egl"
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert probe("cartpole_balance", FAST).gl == "osmesa"


def test_unknown_task_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^there is no DMControl task 'walker_wolk'; did you mean walker_walk"):
        probe("walker_wolk", FAST)


def test_factory_needs_no_opengl(broken_egl: None) -> None:
    report = probe("tests.tiny:make", FAST)
    assert (report.action_size, report.gl, report.renderer, report.hardware) == (1, "auto", "", False)


def test_factory_that_is_none_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^task 'tests.tiny:nothing': 'tests.tiny' has no callable 'nothing'$"):
        probe("tests.tiny:nothing", FAST)


def test_folders_of_the_user_do_not_hide_our_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("raise RuntimeError('not this one')")
    (tmp_path / "my_probe_task.py").write_text("from tests.tiny import make\n")
    monkeypatch.chdir(tmp_path)
    assert probe("my_probe_task:make", FAST).action_size == 1


@pytest.mark.parametrize(
    ("renderer", "gpu", "warns", "hardware"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True, True, False),
        ("softpipe", True, True, False),
        ("llvmpipe (LLVM 15.0.6, 256 bits)", False, False, False),
        ("NVIDIA H200/PCIe/SSE2", True, False, True),
    ],
)
def test_software_on_a_machine_with_a_gpu_is_warned_of(
    renderer: str, gpu: bool, warns: bool, hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "_ask", lambda *_: {"action_size": 1, "renderer": renderer})
    monkeypatch.setattr(rendering, "_has_nvidia_gpu", lambda: gpu)
    report = probe("cartpole_balance", FAST)
    assert bool(report.warning) == warns
    assert report.hardware == hardware
    assert "\n" not in report.warning


def test_configure_sets_the_variables_before_dm_control_is_imported() -> None:
    program = (
        "import os, sys\n"
        "import actors.environment, actors.collector, actors.evaluator\n"
        "from actors.rendering import configure\n"
        "assert 'dm_control' not in sys.modules\n"
        "assert configure('osmesa') == 'osmesa'\n"
        "assert os.environ['MUJOCO_GL'] == os.environ['PYOPENGL_PLATFORM'] == 'osmesa'\n"
        "from dm_control import _render\n"
        "assert _render.BACKEND == configure('auto') == 'osmesa'\n"
        "configure('egl')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert "RuntimeError: this process already renders with osmesa; egl needs a new process" in done.stderr


def test_auto_takes_the_first_backend_that_draws(broken_egl: None) -> None:
    program = "from actors.rendering import configure; print(configure('auto'))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "osmesa"


def test_configure_keeps_this_processs_choice() -> None:
    assert configure("auto") == os.environ["MUJOCO_GL"]
