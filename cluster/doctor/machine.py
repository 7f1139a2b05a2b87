"""Cores, memory, disk and GPU, as far as this process may use them."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from pathlib import Path

import torch

from cluster.doctor.finding import Finding
from common.cores import usable_cores
from common.presets import paper
from common.sequence import IMAGE_SHAPE

_GIB = 1 << 30
_ENOUGH_MEMORY = 4 * _GIB
_ENOUGH_SHARED_MEMORY = 1 * _GIB
_NVIDIA_SMI_SECONDS = 20
# A container's limits: version 2 of control groups, then version 1.
_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def cores() -> Finding:
    """CPU cores that this process may run on; a container's quota counts."""
    usable = usable_cores()
    detail = f"{usable:g} of {os.cpu_count()} usable"
    if usable >= 2:
        return Finding("CPU cores", "ok", detail)
    return Finding("CPU cores", "warn", detail, "actors and learner want two cores or more; --runtime inline uses one")


def memory() -> Finding:
    """Memory that is free for runs; a container's limit counts."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    limits = [path.read_text().strip() for path in _MEMORY_LIMITS if path.exists()]
    allowed = min((int(limit) for limit in limits if limit != "max"), default=total)
    available = min(available, allowed)
    detail = f"{_gib(available)} available of {_gib(min(total, allowed))}"
    if available >= _ENOUGH_MEMORY:
        return Finding("memory", "ok", detail)
    return Finding("memory", "warn", detail, "use few actors (about 0.4 GiB each) and --replay-store lmdb")


def shared_memory() -> Finding:
    """Room in /dev/shm, where Ray keeps its object store."""
    free = shutil.disk_usage("/dev/shm").free
    if free >= _ENOUGH_SHARED_MEMORY:
        return Finding("shared memory", "ok", f"{_gib(free)} free in /dev/shm")
    advice = "Ray falls back to a much slower disk; start the container with --shm-size=4g"
    return Finding("shared memory", "warn", f"{_gib(free)} free in /dev/shm", advice)


def disk(folder: Path) -> Finding:
    """Room for run folders, held against what the replay of a `paper` run grows to."""
    config = paper()
    wanted = config.replay.capacity // config.environment.action_repeat * math.prod(IMAGE_SHAPE)
    free = shutil.disk_usage(folder).free
    detail = f"{_gib(free)} free in {folder.resolve()}"
    if free >= wanted:
        return Finding("disk", "ok", detail)
    advice = f"a paper run's replay grows to {_gib(wanted)}; put --run-dir elsewhere or lower --replay.capacity"
    return Finding("disk", "warn", detail, advice)


def gpu() -> Finding:
    """The GPU that torch sees, and whether the driver sees one that torch does not."""
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = ", ".join(f"{each.name} ({_gib(each.total_memory)})" for each in properties)
        return Finding("GPU", "ok", f"{names}, CUDA {torch.version.cuda}")
    driver = _driver_gpus()
    if driver and torch.version.cuda is None:
        detail = f"{driver}, but torch {torch.__version__} is built without CUDA"
        return Finding("GPU", "warn", detail, "install a CUDA build of torch")
    if driver:
        detail = f"{driver}, but torch (CUDA {torch.version.cuda}) cannot use it"
        return Finding("GPU", "warn", detail, "update the driver if nvidia-smi shows an older CUDA than torch's")
    return Finding("GPU", "warn", "none", "--preset small learns on the CPU; paper wants a GPU")


def _driver_gpus() -> str:
    """What nvidia-smi lists; empty when it is not there, fails or hangs."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return ""
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return "; ".join(run.stdout.splitlines()) if run.returncode == 0 else ""


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"
