"""A study's numbers, held against ones computed by hand, on fabricated run folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from cluster.studies.grid import cells
from cluster.studies.report import write_report
from cluster.studies.scores import aggregate, entry
from cluster.studies.study import load_study
from common.run_folder import RunFolder

STEPS = [0, 400, 800, 1200]


def study(out: Path, returns: dict[tuple[str, str, int], list[float]], **changes: Any) -> tuple[str, dict[str, Any]]:
    """The report of a study whose runs, by task, variant and seed, had these mean returns at `STEPS`.

    A run that is not among them was never begun; one with fewer returns is unfinished.
    """
    content = {
        "title": "Two agents",
        "preset": "smoke",
        "tasks": ["walker_walk", "hopper_stand"],
        "variants": {"a": {}, "b": {"algorithm": "bird", "horizon": 7}},
        "seeds": [0, 1, 2],
        "settings": {"environment": {"time_limit": 1000}},
    }
    out.mkdir(exist_ok=True)
    file = out / "study.yaml"
    file.write_text(yaml.safe_dump({**content, **changes}, sort_keys=False))
    read = load_study(file)
    grid = cells(read)
    for cell in grid:
        key = (cell.config.task, cell.variant if cell.x is None else f"{cell.variant}{cell.x}", cell.config.seed)
        if key not in returns:
            continue
        folder = RunFolder(cell.folder(out))
        folder.create(cell.config)
        for rotation in cell.config.eval_rotation:
            for steps, mean in zip(STEPS, returns[key], strict=False):
                value = mean - rotation
                folder.append_evaluation(
                    {"env_steps": steps, "mean": value, "returns": [value], "rotation_degrees": rotation}
                )
        if len(returns[key]) == len(STEPS):
            folder.write_summary({"finished": True})
    path = write_report(read, grid, out)
    return path.read_text(), json.loads((out / "report.json").read_text())


def whole(offset: float = 0.0) -> dict[tuple[str, str, int], list[float]]:
    return {
        (task, variant, seed): [0.0, 10.0, 100.0, base + 100 * seed + offset]
        for task, variant, base in (
            ("walker_walk", "a", 100),
            ("walker_walk", "b", 300),
            ("hopper_stand", "a", 500),
            ("hopper_stand", "b", 400),
        )
        for seed in (0, 1, 2)
    }


def test_entries_are_means_and_deviations_over_seeds_and_the_best_is_bold(tmp_path: Path) -> None:
    text, numbers = study(tmp_path, whole())
    assert "| walker_walk | 200.0 ± 100.0 | **400.0** ± 100.0 |" in text
    assert "| hopper_stand | **600.0** ± 100.0 | 500.0 ± 100.0 |" in text
    first = numbers["entries"][0]
    assert first == {
        "env_steps": 1200,
        "rotation": 0.0,
        "task": "walker_walk",
        "x": None,
        "variant": "a",
        "mean": 200.0,
        "std": 100.0,
        "seeds": 3,
    }
    assert len(numbers["scores"]) == 12
    assert numbers["unfinished"] == []


def test_interquartile_means_leave_out_the_outer_quarters_of_all_scores(tmp_path: Path) -> None:
    text, numbers = study(tmp_path, whole())
    # a: 100 200 300 500 600 700: a quarter of six, rounded down, is one at each end
    a, b = numbers["interquartile_means"]
    assert a["iqm"] == pytest.approx((200 + 300 + 500 + 600) / 4 / 1000)
    assert b["iqm"] == pytest.approx((400 + 400 + 500 + 500) / 4 / 1000)
    assert (a["runs"], a["tasks"], a["scaled"]) == (6, ["walker_walk", "hopper_stand"], True)
    assert a["low"] < a["iqm"] < a["high"]
    assert f"| 2 | 0.400 [{a['low']:.3f}, {a['high']:.3f}] |" in text


def test_the_bootstrap_draws_seeds_within_tasks() -> None:
    easy, hard = np.array([900.0, 910.0, 920.0]), np.array([0.0, 10.0, 20.0])
    found = aggregate([easy, hard])
    assert found.low is not None
    assert found.high is not None
    # Drawn within tasks, three of six are always easy: the mean stays near 460. Drawn from all, it would reach 900.
    assert 440 < found.low < found.iqm < found.high < 480
    rng = np.random.default_rng(1)
    drawn = np.concatenate([rng.choice(easy, (20_000, 3)), rng.choice(hard, (20_000, 3))], axis=1)
    by_hand = stats.trim_mean(drawn, 0.25, axis=1)
    assert (found.low, found.high) == pytest.approx(np.quantile(by_hand, [0.025, 0.975]), abs=1.5)


def test_a_single_seed_has_neither_deviation_nor_interval() -> None:
    assert entry([3.0]) == (3.0, None, 1)
    assert entry([1.0, 3.0]) == (2.0, math.sqrt(2), 2)
    assert aggregate([np.array([1.0]), np.array([3.0])]) == (2.0, None, None, 2)


def test_step_counts_and_angles_have_a_table_each(tmp_path: Path) -> None:
    text, numbers = study(
        tmp_path,
        whole(),
        settings={"eval_rotation": [0, 5], "environment": {"time_limit": 1000}},
        report={"env_steps": [790, 1200], "rotations": [5]},
    )
    assert "## 790 environment steps, images rotated by up to ±5°" in text
    assert "| walker_walk | **95.0** ± 0.0 | **95.0** ± 0.0 |" in text
    assert {score["evaluated_at"] for score in numbers["scores"]} == {800, 1200}
    assert {score["rotation"] for score in numbers["scores"]} == {5.0}


def test_missing_and_unfinished_runs_are_named_and_the_rest_is_reported(tmp_path: Path) -> None:
    returns = whole()
    del returns["walker_walk", "a", 2]
    returns["hopper_stand", "b", 0] = [0.0, 10.0]
    for seed in (0, 1, 2):
        del returns["hopper_stand", "a", seed]
    text, numbers = study(tmp_path, returns)
    assert "**Incomplete: 5 of 12 runs have not finished:** `walker_walk/a/seed_2`" in text
    assert "| walker_walk | 150.0 ± 70.7 (2 of 3) | **400.0** ± 100.0 |" in text
    assert "| hopper_stand | – | 550.0 ± 70.7 (2 of 3) |" in text, "a run that has not come that far does not count"
    assert numbers["unfinished"][-1] == "hopper_stand/b/seed_0"
    assert {tuple(each["tasks"]) for each in numbers["interquartile_means"]} == {("walker_walk",)}


def test_nothing_there_is_a_report_too(tmp_path: Path) -> None:
    text, numbers = study(tmp_path, {})
    assert "**Incomplete: 12 of 12 runs have not finished:**" in text
    assert "| walker_walk | – | – |" in text
    assert numbers["scores"] == []
    assert "report.png" not in text
    assert not (tmp_path / "report.png").exists()


def test_steps_repeated_after_a_resume_count_once(tmp_path: Path) -> None:
    returns = whole()
    study(tmp_path, returns)
    folder = RunFolder(tmp_path / "runs" / "walker_walk" / "a" / "seed_0")
    folder.append_evaluation({"env_steps": 1200, "mean": 400.0, "returns": [400.0], "rotation_degrees": 0.0})
    text, _ = study(tmp_path, {})
    assert "| walker_walk | 300.0 ± 100.0 |" in text


def test_the_variants_differences_from_the_preset_are_listed(tmp_path: Path) -> None:
    text, _ = study(tmp_path, whole(), settings={"eval_episodes": 4, "environment": {"time_limit": 1000}})
    assert "All runs change in the preset: `environment.time_limit: 1000`, `eval_episodes: 4`." in text
    assert "| `a` | nothing |" in text
    assert "| `b` | `algorithm: bird`, `horizon: 7` |" in text
    assert "2 tasks × 2 variants × 3 seeds (0, 1, 2) = 12 runs of 1,200 environment steps" in text


@pytest.mark.parametrize(
    ("rotation", "row"),
    [
        (0, "| **100.0** ± 0.0 | **100.0** ± 0.0 | 630.0 ± 113.0 | 277.0 ± 12.0 | 612.0 ± 164.0 |"),
        (5, "| **95.0** ± 0.0 | **95.0** ± 0.0 | 527.1 ± 166.0 | 372.5 ± 19.0 | 122.5 ± 15.0 |"),
    ],
)
def test_the_papers_numbers_of_the_same_angle_stand_beside_ours(tmp_path: Path, rotation: int, row: str) -> None:
    settings = {
        "env_steps": 300_000,
        "eval_every": 250_000,
        "eval_rotation": [rotation],
        "environment": {"time_limit": 1000},
        "replay": {"capacity": 400_000},
    }
    report = {"env_steps": [100_000], "published": "idm"}
    text, numbers = study(tmp_path, whole(), settings=settings, report=report, tasks=["walker_walk"])
    assert "| task | a | b | *IDM* | *Dreamer (IDM paper)* | *DrQ* |" in text
    # The newest evaluation, at 1,200 steps, is the nearest to 100,000 and within half an interval of it.
    assert "| walker_walk |" in text
    row_here = next(line for line in text.splitlines() if line.startswith("| walker_walk |"))
    assert row_here.endswith(row.split(" | ", 2)[2])
    assert {each["agent"] for each in numbers["published"]} == {"IDM", "Dreamer (IDM paper)", "DrQ"}


def test_an_axis_is_a_row_a_value_and_the_figure_s_horizontal_axis(tmp_path: Path) -> None:
    returns = {
        ("walker_walk", f"{variant}{x}", seed): [0.0, 0.0, 0.0, 10.0 * x + seed + (100 if variant == "b" else 0)]
        for variant in "ab"
        for x in (4, 8)
        for seed in (0, 1, 2)
    }
    axis = {"label": "imagination horizon", "fields": ["horizon", "planet.horizon"], "values": [4, 8]}
    variants = {"a": {}, "b": {"algorithm": "bird"}}
    text, numbers = study(tmp_path, returns, tasks=["walker_walk"], axis=axis, variants=variants)
    assert "× 2 values of imagination horizon × 3 seeds" in text
    assert "| task | imagination horizon | a | b |" in text
    assert "| walker_walk | 4 | 41.0 ± 1.0 | **141.0** ± 1.0 |" in text
    assert "| walker_walk | 8 | 81.0 ± 1.0 | **181.0** ± 1.0 |" in text
    assert "## Returns over imagination horizon" in text
    assert [each["x"] for each in numbers["interquartile_means"]] == [4, 4, 8, 8]
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_tasks_that_are_not_dmcontrols_are_put_together_as_they_are(tmp_path: Path) -> None:
    returns = {("tests.tiny:make", "a", seed): [0.0, 0.0, 0.0, 10.0 + seed] for seed in (0, 1, 2)}
    text, numbers = study(tmp_path, returns, tasks=["tests.tiny:make"], variants={"a": {}})
    assert "returns as they are" in text
    assert not numbers["interquartile_means"][0]["scaled"]
    assert numbers["interquartile_means"][0]["iqm"] == pytest.approx(11.0)


def test_the_same_runs_elsewhere_give_the_same_bytes(tmp_path: Path) -> None:
    study(tmp_path / "one", whole())
    study(tmp_path / "two", dict(reversed(whole().items())))
    for name in ("report.md", "report.json", "report.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "one" / "report.md").read_text()


def test_what_to_do_next_is_in_the_report(tmp_path: Path) -> None:
    text, _ = study(tmp_path, whole(), then="Run `dreamfleet inspect`.\n", source="A paper, table 3.")
    assert "## Then\n\nRun `dreamfleet inspect`.\n" in text
    assert "A paper, table 3." in text
