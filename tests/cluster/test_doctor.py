import io
import json
import re
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
import torch
from rich.console import Console

from actors.rendering import ProbeReport
from cluster.doctor import Finding, examine, machine, ray_exposure, render, rendering, software, to_json
from common import cores
from common.errors import UserError

_Usage = namedtuple("_Usage", "total used free")
_FRAME = ProbeReport(1, "egl", "NVIDIA H200/PCIe/SSE2", True, 1.0, "")


def _answers(report: ProbeReport):
    return lambda task, config: report


def test_everything_is_looked_at_and_advice_is_given_for_every_lack(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(rendering, "probe", _answers(_FRAME))
    findings = examine(tmp_path)
    assert [finding.name for finding in findings] == [
        "Python",
        "packages",
        "CPU cores",
        "memory",
        "shared memory",
        "disk",
        "OpenGL",
        "GPU",
        "C++ compiler",
        "redis-server",
        "prometheus",
        "Ray token",
        "Ray ports",
    ]
    assert all(finding.detail for finding in findings)
    assert all(finding.advice for finding in findings if finding.status != "ok")


def test_the_supported_pythons_are_the_package_s() -> None:
    wanted = set(software.SUPPORTED_PYTHON.split(","))
    assert set(metadata.metadata("dreamfleet")["Requires-Python"].split(",")) == wanted


@pytest.mark.parametrize(("version", "status"), [("3.10.9", "missing"), ("3.12.4", "ok"), ("3.13.0", "missing")])
def test_a_python_out_of_range_is_missing(monkeypatch: pytest.MonkeyPatch, version: str, status: str) -> None:
    monkeypatch.setattr(software.platform, "python_version", lambda: version)
    assert software.python().status == status


def test_packages_out_of_range_or_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["mujoco==3.17.*", "no-such-package>=1", "numpy>=2.0", 'no-such-tool>=1; extra == "dev"']
    installed = {"mujoco": "4.0.1", "numpy": "2.4.0rc1"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(software.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(software.metadata, "version", version)
    finding = software.packages()
    assert finding.status == "missing"
    assert finding.detail == "mujoco is 4.0.1, wanted ==3.17.*; no-such-package is not installed"


def test_running_from_a_bare_tree_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_DISTRIBUTION", "no-such-distribution")
    assert software.packages().status == "warn"


def test_programs_that_are_not_there_are_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    for check in (software.redis, software.prometheus, software.compiler):
        assert check().status == "warn"
    assert "apt-get install redis-server" in software.redis().advice


def test_a_program_tells_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\necho Redis server v=7.0.15\necho more\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert software.redis() == Finding("redis-server", "ok", "Redis server v=7.0.15")


def test_the_compiler_that_the_environment_names_is_the_one_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert software.compiler().detail == "none: CXX=no-such-compiler is no program"


def test_a_compiler_without_python_s_header_cannot_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(software.shutil, "which", lambda name: "/bin/g++")
    monkeypatch.setattr(software.sysconfig, "get_path", lambda name: str(tmp_path))
    assert software.compiler().status == "warn"
    assert "-dev" in software.compiler().advice


def test_a_container_s_core_quota_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    limit.write_text("50000 100000\n")
    monkeypatch.setattr(cores, "_QUOTA", limit)
    assert machine.cores().status == "warn"
    assert machine.cores().detail.startswith("0.5 of ")
    limit.write_text("max 100000\n")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: {0, 1, 2})
    assert machine.cores().detail.startswith("3 of ")


def test_a_container_s_memory_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_MEMORY_LIMITS", (limit,))
    limit.write_text(f"{1 << 30}\n")
    assert machine.memory().status == "warn"
    assert machine.memory().detail.endswith("of 1.0 GiB")
    limit.write_text("max\n")
    assert not machine.memory().detail.endswith("of 1.0 GiB")


@pytest.mark.parametrize(("gib", "status"), [(11, "warn"), (12, "ok")])
def test_disk_is_held_against_a_paper_run_s_replay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gib: int, status: str
) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: _Usage(0, 0, gib << 30))
    assert machine.disk(tmp_path).status == status


def test_little_shared_memory_names_the_container_s_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: _Usage(0, 0, 64 << 20))
    assert machine.shared_memory().status == "warn"
    assert "--shm-size" in machine.shared_memory().advice


@pytest.mark.parametrize(
    ("driver", "build", "advice"),
    [("", None, "--preset small"), ("H200", None, "install a CUDA build"), ("H200", "13.0", "update the driver")],
)
def test_without_a_usable_gpu_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, driver: str, build: str | None, advice: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(machine, "_driver_gpus", lambda: driver)
    finding = machine.gpu()
    assert finding.status == "warn"
    assert advice in finding.advice


def test_a_hanging_driver_does_not_hang_the_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "_NVIDIA_SMI_SECONDS", 0.2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.gpu().detail == "none"


def test_hardware_and_software_renderers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "probe", _answers(_FRAME))
    assert rendering.opengl() == Finding("OpenGL", "ok", "egl: NVIDIA H200/PCIe/SSE2 (hardware), first frame in 1.0 s")
    monkeypatch.setattr(rendering, "probe", _answers(ProbeReport(1, "egl", "llvmpipe", False, 2.0, "")))
    finding = rendering.opengl()
    assert finding.status == "warn"
    assert "llvmpipe (software)" in finding.detail
    assert "--environment.rendering fast" in finding.advice


def test_a_machine_that_cannot_draw_lacks_what_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(task, config):
        raise UserError("no OpenGL backend draws cartpole_balance")

    monkeypatch.setattr(rendering, "probe", probe)
    finding = rendering.opengl()
    assert finding.status == "missing"
    assert "libosmesa6" in finding.advice


def test_the_token_s_place_is_told_and_never_the_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    token = tmp_path / ".ray" / "auth_token"
    assert f"the first run makes one in {token}" in ray_exposure.authentication().detail
    token.parent.mkdir()
    token.write_text("sesame")
    finding = ray_exposure.authentication()
    assert finding.status == "ok"
    assert f"the token is in {token}" in finding.detail
    monkeypatch.setenv("RAY_AUTH_TOKEN", "sesame")
    assert ray_exposure.authentication().detail == "required; the token is in RAY_AUTH_TOKEN"
    assert "sesame" not in to_json([finding, ray_exposure.authentication()])


def test_switched_off_authentication_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert ray_exposure.authentication().status == "warn"
    assert ray_exposure.ports().status == "warn"


def test_only_ray_s_ports_that_face_every_interface_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    (tmp_path / "net").mkdir()
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: {} 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 {} 1 0 100 0 0 10 0\n"
    listening, connected = "0A", "01"
    (tmp_path / "net" / "tcp").write_text(
        header
        + row.format("00000000:18EB", listening, 11)  # 6379, the raylet's
        + row.format("0100007F:1F90", listening, 12)  # 8080 on the loopback interface
        + row.format("00000000:1F91", connected, 13)
        + row.format("00000000:0016", listening, 14)  # 22, of another process
    )
    (tmp_path / "net" / "tcp6").write_text(header + row.format("0" * 32 + ":2710", listening, 15))
    for process, name, sockets in ((1, "raylet", (11, 12, 13)), (2, "sshd", (14,)), (3, "ray::IDLE", (15,))):
        descriptors = tmp_path / str(process) / "fd"
        descriptors.mkdir(parents=True)
        (tmp_path / str(process) / "comm").write_text(f"{name}\n")
        for socket in sockets:
            (descriptors / str(socket)).symlink_to(f"socket:[{socket}]")
    (tmp_path / "4").mkdir()  # a process that ended meanwhile
    finding = ray_exposure.ports(tmp_path)
    assert finding.detail == "a running Ray listens on every interface: 6379, 10000"
    assert finding.status == "ok"
    assert "firewall" in finding.advice


FINDINGS = [
    Finding("Python", "ok", "3.11.7"),
    Finding("GPU", "warn", "none [at all]", "buy one"),
    Finding("OpenGL", "missing", "no backend", "install one"),
]


def test_json_holds_every_field() -> None:
    assert json.loads(to_json(FINDINGS))[1] == {
        "name": "GPU",
        "status": "warn",
        "detail": "none [at all]",
        "advice": "buy one",
    }


@pytest.mark.parametrize(
    ("count", "verdict"), [(1, "ready to train"), (2, "ready to train; 1 could be better"), (3, "1 required, missing")]
)
def test_the_table_ends_with_a_verdict(count: int, verdict: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    render(FINDINGS[:count], console)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines[-1] == verdict
    assert lines[0].startswith("✓  Python")
    if count > 1:
        assert re.match(r"!  GPU +none \[at all\]$", lines[1])
        assert lines[2].strip() == "→ buy one"
