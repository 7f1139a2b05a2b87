"""Which OpenGL draws: the backend of this process, and what a machine can do, found out in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

from actors.tasks import is_factory
from common.config import EnvironmentConfig
from common.errors import UserError

Choice = Literal["auto", "egl", "osmesa"]
BACKENDS: tuple[Choice, ...] = ("egl", "osmesa")
PROBE_TASK = "cartpole_balance"
SOFTWARE_RENDERERS = ("llvmpipe", "softpipe", "swrast", "osmesa")


@dataclass(frozen=True)
class ProbeReport:
    """What a fresh process found when it built an environment and drew one frame.

    Attributes:
        action_size: A.
        gl: the backend that worked; for a `module:factory` the one that was asked for.
        renderer: OpenGL's name for what draws; empty when unknown.
        hardware: whether that is a GPU.
        seconds: until the first frame was there, start of the process included.
        warning: one line when a GPU is there and does not draw; empty otherwise.
    """

    action_size: int
    gl: Choice
    renderer: str
    hardware: bool
    seconds: float
    warning: str


def configure(gl: Choice) -> str:
    """Chooses the OpenGL backend of this process, before DMControl is imported; returns its name.

    `auto` keeps what the process or its MUJOCO_GL already has, and else takes the first backend that draws in a probe.

    Raises:
        UserError: no backend works.
        RuntimeError: DMControl is already imported with another backend.
    """
    loaded = sys.modules.get("dm_control._render")
    if gl == "auto" and loaded is not None:
        return loaded.BACKEND
    chosen = gl if gl != "auto" else os.environ.get("MUJOCO_GL", "")
    if chosen not in BACKENDS:
        chosen = probe(PROBE_TASK, EnvironmentConfig(rendering="fast")).gl
    if loaded is not None and chosen != loaded.BACKEND:
        raise RuntimeError(f"this process already renders with {loaded.BACKEND}; {chosen} needs a new process")
    os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = chosen
    return chosen


def probe(task: str, config: EnvironmentConfig, timeout: float = 120.0) -> ProbeReport:
    """Builds the task and draws one frame in a new process; with `auto`, EGL first and OSMesa after it.

    Args:
        task: a DMControl task or `package.module:factory`; a factory is tried once, with its own OpenGL.
        config: its `gl` says which backends may be tried; MUJOCO_GL narrows `auto`.
        timeout: seconds for each backend, after which it counts as hanging.

    Raises:
        UserError: the task is not as it must be, or no backend draws it; the line says what to install.
    """
    failures = []
    for gl in _candidates(task, config.gl):
        started = time.monotonic()
        answer = _ask(task, replace(config, gl=gl), timeout)
        if "user_error" in answer:
            raise UserError(answer["user_error"])
        if "failure" not in answer:
            renderer = answer["renderer"]
            hardware = renderer != "" and not any(name in renderer.lower() for name in SOFTWARE_RENDERERS)
            warning = _software_warning(gl, renderer) if renderer and not hardware and _has_nvidia_gpu() else ""
            return ProbeReport(answer["action_size"], gl, renderer, hardware, time.monotonic() - started, warning)
        failures.append(f"{gl}: {answer['failure']}")
    reasons = "; ".join(failures)
    if is_factory(task):
        raise UserError(f"task {task!r} cannot be built ({reasons})")
    raise UserError(f"no OpenGL backend draws {task} ({reasons}); install libegl1 for EGL or libosmesa6 for OSMesa")


def _candidates(task: str, gl: Choice) -> tuple[Choice, ...]:
    if gl != "auto" or is_factory(task):
        return (gl,)
    return tuple(backend for backend in BACKENDS if backend == os.environ.get("MUJOCO_GL")) or BACKENDS


def _ask(task: str, config: EnvironmentConfig, timeout: float) -> dict:
    """Runs `actors.probe`; its answer, or {"failure": why there is none}."""
    command = [sys.executable, "-P", "-m", "actors.probe", task, json.dumps(asdict(config))]
    backend = {} if config.gl == "auto" else {"MUJOCO_GL": config.gl, "PYOPENGL_PLATFORM": config.gl}
    # The child imports what this process would; -P keeps a folder of the user's from hiding a package of ours.
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        environment = {**os.environ, **backend, "PYTHONPATH": path}
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # a driver's uninterruptible hang outlives the kill
                process.wait(5)
            return {"failure": f"no frame within {timeout:g} s"}
        output.seek(0)
        errors.seek(0)
        answer, complaint = output.read().splitlines(), errors.read().split("\n")
    if answer and answer[-1].startswith("{"):
        return json.loads(answer[-1])
    lines = [line.strip() for line in complaint if line.strip()]
    return {"failure": lines[-1] if lines else f"ended with status {process.returncode}"}


def _has_nvidia_gpu() -> bool:
    return os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None


def _software_warning(gl: str, renderer: str) -> str:
    return (
        f"{gl} draws in software ({renderer}) although this machine has an NVIDIA GPU, ten or more times slower; "
        "install NVIDIA's EGL libraries (in a container, NVIDIA_DRIVER_CAPABILITIES=all)"
    )
