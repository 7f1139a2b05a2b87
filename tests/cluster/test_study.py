"""`dreamfleet study`: files read strictly, grids, refusals, dry runs. Nothing is trained here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.main import main
from cluster.studies.grid import cells
from cluster.studies.study import load_study
from common.errors import UserError
from common.lock import claim
from common.run_folder import RunFolder
from tests.cluster.commands import REPOSITORY, one_line_and_exit_2, snapshot

PAPERS = sorted((REPOSITORY / "docs" / "studies").glob("*.yaml"))
STUDY: dict[str, Any] = {
    "title": "T",
    "preset": "smoke",
    "tasks": ["walker_walk", "tests.tiny:make"],
    "variants": {
        "idm": {"algorithm": "idm"},
        "halved": {"algorithm": "idm", "idm": {"ablation": "without_evaluator"}},
    },
    "seeds": [3, 4],
    "settings": {"runtime": "inline", "eval_rotation": [0, 5]},
    "report": {"env_steps": [800, 1200], "rotations": [5]},
}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


# Reading


def test_a_cell_is_the_preset_with_settings_and_variant_on_top(tmp_path: Path) -> None:
    grid = cells(load_study(write(tmp_path / "s.yaml")))
    assert len(grid) == 2 * 2 * 2
    assert grid[0].name == "walker_walk/idm/seed_3"
    assert grid[0].folder(tmp_path) == tmp_path / "runs" / "walker_walk" / "idm" / "seed_3"
    last = grid[-1]
    assert last.name == "tests.tiny.make/halved/seed_4"
    assert (last.config.task, last.config.seed, last.config.preset) == ("tests.tiny:make", 4, "smoke")
    assert (last.config.runtime, last.config.eval_rotation) == ("inline", (0.0, 5.0))
    assert last.config.idm.ablation == "without_evaluator"
    assert last.config.training.batch_size == 4, "the preset's"


def test_an_axis_is_a_run_for_each_value_in_every_field_that_it_names(tmp_path: Path) -> None:
    axis = {"fields": ["horizon", "planet.horizon"], "values": [5, 10]}
    grid = cells(load_study(write(tmp_path / "s.yaml", axis=axis, tasks=["walker_walk"], seeds=[0])))
    assert [cell.name for cell in grid[:2]] == ["walker_walk/idm/5/seed_0", "walker_walk/idm/10/seed_0"]
    assert [(cell.config.horizon, cell.config.planet.horizon) for cell in grid[:2]] == [(5, 5), (10, 10)]


def test_an_algorithm_brings_its_own_settings_which_the_study_can_overrule(tmp_path: Path) -> None:
    variants = {"bird": {"algorithm": "bird"}, "large": {"algorithm": "bird", "replay": {"capacity": 300_000}}}
    grid = cells(load_study(write(tmp_path / "s.yaml", preset="paper", settings={}, variants=variants, report={})))
    assert {cell.variant: cell.config.replay.capacity for cell in grid} == {"bird": 100_000, "large": 300_000}


def test_inline_runs_begin_anew_and_ray_runs_go_on_unless_the_study_says_otherwise(tmp_path: Path) -> None:
    def anew(**changes: Any) -> set[bool]:
        return {cell.anew for cell in cells(load_study(write(tmp_path / "s.yaml", **changes)))}

    ray = {**STUDY["settings"], "runtime": "ray"}
    assert anew() == {True}
    assert anew(settings=ray) == {False}
    assert anew(restart="resume") == {False}
    assert anew(settings=ray, restart="anew") == {True}


BAD = [
    ({"tassk": []}, "unknown field tassk; did you mean tasks?"),
    ({"report": {"env_step": [1]}}, "unknown field report.env_step; did you mean report.env_steps?"),
    ({"report": {"env_steps": ["many"]}}, "report.env_steps[0]: 'many' is no whole number"),
    ({"report": {"env_steps": [5000]}}, "report.env_steps: 5000 is not within the runs' 1200 environment steps"),
    ({"report": {"rotations": [10]}}, "nothing is evaluated at 10 degrees"),
    ({"report": {"published": "bird"}}, "report.published: 'bird' is none of none, dreamer, idm"),
    ({"settings": {"hroizon": 3}}, "unknown field settings.hroizon; did you mean settings.horizon?"),
    ({"settings": {"seed": 3}}, "settings.seed: the study's own seeds say it"),
    (
        {"variants": {"a": {"idm": {"ablaton": "none"}}}},
        "unknown field variants.a.idm.ablaton; did you mean variants.a.idm.ablation?",
    ),
    ({"variants": {"a": {"idm": {"ablation": "some"}}}}, "variants.a.idm.ablation: 'some' is none of none,"),
    ({"variants": {"a": {"algorithm": "dremer"}}}, "walker_walk/a/seed_3: unknown algorithm 'dremer': did you mean"),
    ({"variants": {"a": {"task": "x"}}}, "variants.a.task: the study's own tasks say it"),
    ({"variants": {"a/b": {}}}, "variants: 'a/b' is to name a folder"),
    ({"variants": {"a": None}}, "variants.a: None is no mapping"),
    ({"variants": {1: {}}}, "is no mapping with names as keys"),
    ({"variants": {}}, "variants: a study needs at least one"),
    ({"variants": {"a": {"horizon": 1}}}, "--horizon must be at least 2"),
    ({"seeds": []}, "seeds: a study needs at least one"),
    ({"seeds": [1, 1]}, "seeds: 1 stands there twice"),
    ({"seeds": 3}, "seeds: 3 is no list"),
    ({"seeds": [-1]}, "--seed must be zero or more"),
    ({"tasks": "walker_walk"}, "tasks: 'walker_walk' is no list"),
    ({"title": ""}, "title: a study needs one"),
    ({"preset": "smok"}, "unknown preset 'smok': did you mean smoke?"),
    ({"restart": "never"}, "restart: 'never' is none of auto, anew, resume"),
    ({"axis": {"fields": ["horizn"], "values": [3]}}, "unknown field axis.horizn; did you mean axis.horizon?"),
    ({"axis": {"fields": ["horizon"]}}, "axis: give fields and values, or neither"),
    ({"axis": {"fields": ["horizon"], "values": ["x"]}}, "axis.values[0]: 'x' is no number"),
    ({"axis": {"fields": ["horizon"], "values": [2.5]}}, "axis.horizon: 2.5 is no whole number"),
    (
        {"axis": {"fields": ["horizon"], "values": [3]}, "report": {"published": "idm"}},
        "report.published: nothing published goes with an axis",
    ),
]


@pytest.mark.parametrize(("changes", "words"), BAD, ids=[words[:40] for _, words in BAD])
def test_a_bad_study_ends_with_one_line_before_anything_is_written(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "s.yaml", **changes), tmp_path / "out"
    line = one_line_and_exit_2(["study", str(file), "--out", str(out)], capsys)
    assert words in line
    assert str(file) in line
    assert not out.exists()


def test_a_key_that_stands_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "s.yaml")
    file.write_text(file.read_text() + "seeds: [9]\n")
    assert "seeds stands there twice" in one_line_and_exit_2(["study", str(file), "--out", str(tmp_path / "o")], capsys)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["no.yaml", "--out", "o"], "no.yaml: No such file"),
        (["s.yaml"], "--out"),
        (["s.yaml", "--out", "o", "--jobs", "0"], "--jobs must be positive, not 0"),
        (["s.yaml", "--out", "o", "--report-only"], "--report-only: o holds no study"),
        (["s.yaml", "--out", "s.yaml"], "cannot use s.yaml as a study's folder"),
    ],
)
def test_bad_arguments_end_with_one_line(
    args: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "s.yaml", tasks=["walker_walk"])
    assert words in one_line_and_exit_2(["study", *args], capsys)
    assert not (tmp_path / "o").exists()


def test_a_task_that_does_not_exist_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = write(tmp_path / "s.yaml", tasks=["walker_walk", "tests.tiny:maker"]), tmp_path / "out"
    assert "no callable 'maker'" in one_line_and_exit_2(["study", str(file), "--out", str(out)], capsys)
    assert not out.exists()


@pytest.mark.parametrize("file", PAPERS, ids=[path.stem for path in PAPERS])
def test_the_studies_of_the_papers_are_valid(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(file), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "environment steps" in capsys.readouterr().out
    assert load_study(file).source
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_grid_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "s.yaml"), tmp_path / "out"
    assert main(["study", str(file), "--out", str(out), "--dry-run"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "walker_walk/idm/seed_3  1,200 environment steps"
    assert shown[-1] == "8 runs, 9,600 environment steps"
    assert not out.exists()


# A folder that holds a study


def begun(tmp_path: Path, **changes: Any) -> Path:
    """A study's folder in which every run has finished."""
    out = tmp_path / "out"
    out.mkdir()
    study = load_study(write(out / "study.yaml", **changes))
    for cell in cells(study):
        folder = RunFolder(cell.folder(out))
        folder.create(cell.config)
        folder.write_summary({"finished": True})
    return out


OTHERS = [
    ({"seeds": [3]}, "it has a run walker_walk/idm/seed_4, which is left out now"),
    ({"preset": "small", "report": {}}, "preset was smoke, not small"),
    ({"variants": {"idm": {"algorithm": "dreamer"}}}, "begun with algorithm: idm, not dreamer"),
    ({"settings": {**STUDY["settings"], "eval_episodes": 3}}, "begun with eval_episodes: 1, not 3"),
    ({"settings": {**STUDY["settings"], "env_steps": 2000}}, "begun with env_steps: 1200, not 2000, and its runs are"),
    ({"restart": "resume"}, "restart was auto, not resume"),
    ({"axis": {"fields": ["horizon"], "values": [5]}}, "axis.fields was [], not ['horizon']"),
]


@pytest.mark.parametrize(("changes", "words"), OTHERS, ids=[words[:40] for _, words in OTHERS])
def test_another_study_in_the_same_folder_is_refused_by_its_difference(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun(tmp_path)
    before = snapshot(out)
    line = one_line_and_exit_2(["study", str(write(tmp_path / "s.yaml", **changes)), "--out", str(out)], capsys)
    assert words in line
    assert f"{out} holds another study: " in line
    assert line.endswith("name another --out")
    assert snapshot(out) == before


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seeds": [3, 4, 5]},
        {"tasks": [*STUDY["tasks"], "walker_run"]},
        {"variants": {**STUDY["variants"], "dreamer": {}}},
        {"report": {}, "title": "Another", "then": "Go on."},
        {"settings": {**STUDY["settings"], "device": "cpu"}},
    ],
)
def test_more_of_the_same_study_goes_on(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun(tmp_path)
    file = write(tmp_path / "s.yaml", **changes)
    assert main(["study", str(file), "--out", str(out), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("finished") == 8


def test_a_study_of_ray_runs_may_be_lengthened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray = {**STUDY["settings"], "runtime": "ray"}
    out = begun(tmp_path, settings=ray)
    file = write(tmp_path / "s.yaml", settings={**ray, "env_steps": 2000})
    assert main(["study", str(file), "--out", str(out), "--dry-run"]) == 0
    assert "finished" not in capsys.readouterr().out


def test_a_finished_study_runs_nothing_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = begun(tmp_path, tasks=["walker_walk"])
    assert main(["study", str(out / "study.yaml"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == ["4 of 4 runs are finished", str(out / "report.md")]
    assert (out / "report.json").exists()


def test_a_second_study_in_the_folder_at_once_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = begun(tmp_path, tasks=["walker_walk"])
    lock = claim(out)
    try:
        line = one_line_and_exit_2(["study", str(out / "study.yaml"), "--out", str(out)], capsys)
    finally:
        os.close(lock)
    assert f"{out} is in use by process {os.getpid()}" in line
    assert "name another --out" in line


def test_a_run_folder_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = begun(tmp_path, tasks=["walker_walk"])
    (other,) = [cell for cell in cells(load_study(out / "study.yaml")) if cell.name == "walker_walk/halved/seed_3"]
    folder = other.folder(out)
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("horizon: 5", "horizon: 7", 1))
    (folder / "summary.json").unlink()
    line = one_line_and_exit_2(["study", str(out / "study.yaml"), "--out", str(out)], capsys)
    assert "walker_walk/halved/seed_3: the run folder was begun with --horizon 7, not 5" in line
    assert folder.exists()


def test_a_study_that_no_one_can_read_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("title: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load_study(tmp_path / "s.yaml")
