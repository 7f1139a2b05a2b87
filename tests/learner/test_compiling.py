"""What `--compile` makes of the networks, and what it says where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from common.config import Config
from learner import compiling
from learner.compiling import captured, compile_networks
from learner.networks import Decoder, Encoder, Mlp
from learner.ranks import ALONE, Ranks
from tests.learner.tiny import tiny_config
from tests.learner.tiny_learner import assert_equal, make_learner, parameters

CPU = torch.device("cpu")


def compiled(modules: nn.Module) -> set[type[nn.Module]]:
    return {type(module) for module in modules.modules() if module._compiled_call_impl is not None}


def test_without_a_compiler_one_line_says_so_and_updates_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing is there from before
    with inductor.patch({"cpp.cxx": ("/nowhere/c++",), "force_disable_caches": True}):
        learner = make_learner(replace(tiny_config(), compile="default"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dreamfleet: networks are not compiled, as with --compile none (see dreamfleet doctor): ")
    assert line.endswith("/nowhere/c++',)"), "why, and nothing after it"
    plain = make_learner()
    assert learner.update(2).metrics == plain.update(2).metrics
    assert_equal(parameters(learner), parameters(plain))


@pytest.mark.parametrize(
    ("how", "device", "does"),
    [
        ("none", "cpu", False),
        ("default", "cpu", True),
        ("max", "cpu", True),
        ("none", "cuda", False),
        ("default", "cuda", False),
        ("max", "cuda", True),
    ],
)
def test_what_is_compiled(monkeypatch: pytest.MonkeyPatch, how: str, device: str, does: bool) -> None:
    monkeypatch.setattr(compiling, "why_not", lambda device: None)
    modules = make_learner(tiny_config(algorithm="idm")).modules
    assert compile_networks(modules, how, torch.device(device)) == does  # type: ignore[arg-type]
    assert any(issubclass(each, Encoder) for each in compiled(modules)) == (does and device == "cuda")
    assert any(issubclass(each, Decoder) for each in compiled(modules)) == (does and device == "cuda")
    assert any(issubclass(each, Mlp) for each in compiled(modules)) == does


def test_ranks_that_share_batches_are_not_captured() -> None:
    update = make_learner().one_update
    assert captured(update, "max", torch.device("cuda"), Ranks()) is None
    assert captured(update, "max", CPU, ALONE) is None


@pytest.mark.slow
def test_compiled_networks_learn_as_plain_ones_do() -> None:
    configs: dict[str, Config] = {
        how: replace(tiny_config(algorithm="no_value"), compile=how) for how in ("none", "default")
    }  # type: ignore[arg-type]
    plain, learner = (make_learner(config) for config in configs.values())
    assert compiled(learner.modules)
    for _ in range(3):
        expected = plain.update(1).metrics
        assert learner.update(1).metrics == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert learner.reconstruction_strip() is not None
    files = learner.state()
    again = make_learner(replace(configs["none"], seed=9))
    again.restore(files)
    assert_equal(parameters(again), parameters(learner))
