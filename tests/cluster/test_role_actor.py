"""The process that holds a role: what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from cluster.runtimes import ray_runtime
from cluster.runtimes.ray_runtime import RoleActor
from cluster.runtimes.roles import Setting, actor_environment
from common import code
from common.code import Installation, fingerprint, installation
from common.errors import UserError
from common.presets import smoke


def test_a_role_is_built_by_its_first_call_alone() -> None:
    built: list[str] = []

    def build() -> str:
        built.append("once")
        return "a role"

    actor = RoleActor(build, installation())
    assert built == []
    assert [actor.call("upper"), actor.call("title")] == ["A ROLE", "A Role"]
    assert built == ["once"]


def test_a_process_with_other_files_refuses_every_call_and_builds_nothing() -> None:
    actor = RoleActor(lambda: pytest.fail("must not be built"), installation()._replace(files="00000000"))
    for _ in range(2):
        with pytest.raises(UserError, match=f"other Dreamfleet files .{fingerprint()}. than this one .00000000."):
            actor.call("upper")


@pytest.mark.parametrize("name", ["python", "ray", "torch", "numpy", "mujoco", "dm_control"])
def test_a_process_with_another_version_refuses_in_one_line_that_says_what_to_do(name: str) -> None:
    here = installation()
    driver = here._replace(versions={**here.versions, name: "0.0.1"})
    actor = RoleActor(lambda: pytest.fail("must not be built"), driver)
    with pytest.raises(UserError) as refused:
        actor.call("upper")
    text = str(refused.value)
    assert f" has {name} {here.versions[name]} instead of 0.0.1: install the same wheel" in text
    assert "other Dreamfleet files" not in text
    assert "\n" not in text


def test_builds_of_one_version_for_cpu_and_gpu_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(torch: str) -> Installation:
        monkeypatch.setattr(code.metadata, "version", lambda name: torch if name == "torch" else "1.0")
        return installation.__wrapped__()

    assert of("2.13.0+cpu") == of("2.13.0+cu128") == of("2.13.0")
    assert of("2.12.0+cpu").instead_of(of("2.13.0")) == "torch 2.12.0 instead of 2.13.0"


def test_the_fingerprint_is_of_names_and_contents_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(files: dict[str, str]) -> str:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        monkeypatch.setattr(code, "__file__", str(root / "common" / "code.py"))
        return fingerprint.__wrapped__()

    same = {"common/a.py": "x", "learner/deep/b.py": "y"}
    assert of(same) == of({**same, "README.md": "z", "tests/c.py": "t"})
    assert len({of(same), of({**same, "common/a.py": "xx"}), of({"common/b.py": "x", "learner/deep/b.py": "y"})}) == 3


@pytest.mark.parametrize("threads", [1, 2])
def test_an_actors_process_has_as_many_threads_as_it_is_told(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(smoke(), task="tests.tiny:make", acting=replace(smoke().acting, threads=threads))
    setting = Setting(config, action_size=1, gl="auto", replay_folder=tmp_path, device="cpu")
    monkeypatch.setattr(ray_runtime, "build_evaluator", lambda _: torch.get_num_threads)
    before = torch.get_num_threads()
    try:
        assert RoleActor(partial(ray_runtime._evaluator, setting), None).call("__call__") == threads
    finally:
        torch.set_num_threads(before)
    assert actor_environment(config)["OMP_NUM_THREADS"] == str(threads)
