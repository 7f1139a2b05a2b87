"""`benchmark learner --profile`: where the time of an update goes. How fast is no test's business."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from cluster.benchmarks import update_profile
from cluster.benchmarks.update_profile import ABOUT, PARTS, PREFIX, REST, Spent, marked, spent_by_part
from cluster.main import main
from common.presets import smoke
from learner.behaviors import dreamer
from learner.learner import Learner
from tests.learner.tiny import ACTIONS, random_batches, tiny_config

LEARNT = {"encoder", "rssm", "decoder", "imagination", "heads", "losses"}


def profiled(x: Tensor) -> dict[str, Spent]:
    """Five sines in one part, three exponentials in another, their backward pass, and a square root in none."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        with record_function(PREFIX + "encoder"):
            y = x
            for _ in range(5):
                y = y.sin()
        y.detach().sqrt()
        with record_function(PREFIX + "losses"), record_function(PREFIX + "heads"):
            for _ in range(3):
                y = y.exp()
        torch.autograd.grad(y, x, torch.ones_like(y))
    return spent_by_part(profiler.events())


def test_backward_operators_count_for_the_part_that_made_them_necessary() -> None:
    spent = profiled(torch.rand(4, requires_grad=True))
    assert spent["encoder"].operators == 5 + 5 * 2  # a cosine and a product each
    assert spent["heads"].operators == 3 + 3 * 1
    assert spent["losses"].operators == 0
    assert all(spent[part].forward > 0 and spent[part].backward > 0 for part in ("encoder", "heads"))
    assert spent["losses"].backward == 0


def test_all_of_the_profiles_time_is_in_some_part() -> None:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        x = torch.rand(4, requires_grad=True)
        with record_function(PREFIX + "heads"):
            y = x.sin().sum()
        torch.autograd.grad(y, x)
    events = profiler.events()
    own = sum(event.self_cpu_time_total for event in events) / 1e6
    assert sum(each.forward + each.backward for each in spent_by_part(events).values()) == pytest.approx(own)


def test_marks_change_no_number() -> None:
    plain, other = (Learner(tiny_config(), ACTIONS, random_batches()) for _ in range(2))
    with marked(other):
        metrics = other.update(2).metrics
    assert metrics == plain.update(2).metrics
    for name, weight in other.weights().items():
        assert (weight == plain.weights()[name]).all()


def test_nothing_is_left_of_the_marks() -> None:
    learner = Learner(tiny_config(), ACTIONS, random_batches())

    def everything() -> list[object]:
        modules = list(learner.modules.modules())
        return [
            learner.losses,
            learner.feed,
            dreamer.imagine,
            *(getattr(module, "forward", None) for module in modules),
        ]

    before = everything()
    with marked(learner):
        assert everything() != before
    assert everything() == before
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        learner.update(1)
    assert not [event.name for event in profiler.events() if event.name.startswith(PREFIX)]


@pytest.mark.parametrize("algorithm", ["dreamer", "bird", "idm", "planet"])
def test_every_part_of_every_algorithm_is_found(algorithm: str, tmp_path: Path) -> None:
    config = replace(tiny_config(algorithm=algorithm), training=replace(smoke().training, batch_size=2, batch_length=4))
    figures = update_profile.measure(config, ACTIONS, "cpu", 1, tmp_path)
    parts = {row["part"]: row for row in figures["parts"]}
    assert parts.keys() == {*PARTS, REST} == ABOUT.keys()
    silent = {"imagination"} if algorithm == "planet" else set()
    for name in set(PARTS) - silent:
        assert parts[name]["forward_seconds"] > 0, name
        assert parts[name]["operators"] > 0, name
    assert {name for name in PARTS if parts[name]["backward_seconds"] > 0} == LEARNT - silent
    assert sum(row["share"] for row in figures["parts"]) == pytest.approx(1)
    assert figures["seconds_per_update"] == pytest.approx(sum(row["seconds"] for row in figures["parts"]))
    shares = [row["share"] for row in figures["parts"]]
    assert shares == sorted(shares, reverse=True)


def test_the_command_writes_a_page_numbers_and_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    arguments = ["--preset", "smoke", "--device", "cpu", "--updates", "1", "--profile", str(out)]
    assert main(["benchmark", "learner", *arguments]) == 0
    page = (out / "profile.md").read_text()
    assert page in capsys.readouterr().out
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1, "columns line up"
    assert {line.split("|")[1].strip() for line in table[2:]} == {*PARTS, REST, "all"}
    figures = json.loads((out / "profile.json").read_text())
    assert figures["preset"] == "smoke"
    assert figures["operators_per_update"] == sum(row["operators"] for row in figures["parts"])
    trace = json.loads(gzip.decompress((out / "trace.json.gz").read_bytes()))
    assert {PREFIX + part for part in PARTS} <= {event.get("name") for event in trace["traceEvents"]}


def test_the_command_prints_json_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "smoke", "--device", "cpu", "--updates", "1", "--profile", str(tmp_path), "--json"]
    assert main(["benchmark", "learner", *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "profile.json").read_text())


@pytest.mark.parametrize(("what", "profile_to"), [("actors", "out"), ("learner", "file/out")])
def test_a_profile_that_cannot_be_is_refused_in_one_line(
    what: str, profile_to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["benchmark", what, "--preset", "smoke", "--profile", str(tmp_path / profile_to)]) == 2
    error = capsys.readouterr().err
    assert "--profile" in error
    assert error.count("\n") == 1
