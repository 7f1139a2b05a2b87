from pathlib import Path

import numpy as np
import pytest

from cluster.curves import read_curves
from cluster.plots import plot_runs
from cluster.published import published_curves
from common.config import Config
from common.errors import UserError
from common.run_folder import RunFolder


def _run(
    path: Path,
    points: dict[int, float],
    *,
    seed: int = 0,
    task: str = "walker_walk",
    algorithm: str = "dreamer",
    objective: str = "reconstruction",
    preset: str = "paper",
    rotation: float = 0.0,
    offline: str = "",
) -> Path:
    folder = RunFolder(path)
    if not folder.exists:
        what = Config(task=task, algorithm=algorithm, objective=objective, preset=preset, seed=seed, offline=offline)
        folder.create(what)
    for env_steps, mean in points.items():
        folder.append_evaluation({"env_steps": env_steps, "mean": mean, "rotation_degrees": rotation})
    return path


def _texts(svg: Path) -> str:
    return svg.read_text(encoding="utf-8")


def test_seeds_of_one_experiment_become_a_mean_between_minimum_and_maximum(tmp_path: Path) -> None:
    runs = [_run(tmp_path / str(seed), {0: 0, 100: 10 * seed, 200: 60 * seed}, seed=seed) for seed in (1, 2, 3)]
    (curve,) = read_curves(runs)
    assert (curve.runs, curve.seeds) == (3, 3)
    np.testing.assert_array_equal(curve.env_steps, [0, 100, 200])
    np.testing.assert_allclose(curve.mean, [0, 20, 120])
    np.testing.assert_allclose(curve.low, [0, 10, 60])
    np.testing.assert_allclose(curve.high, [0, 30, 180])


def test_whatever_makes_runs_differ_keeps_them_apart(tmp_path: Path) -> None:
    differences = [
        {},
        {"task": "walker_run"},
        {"algorithm": "idm"},
        {"objective": "contrastive"},
        {"preset": "small"},
        {"rotation": 5.0},
        {"offline": "data"},
    ]
    runs = [_run(tmp_path / str(index), {0: 1.0}, **each) for index, each in enumerate(differences)]
    assert len(read_curves(runs)) == len(differences)


def test_a_seed_evaluated_a_little_earlier_still_counts_at_the_last_point(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "a", {0: 0, 100: 10, 200: 20}), _run(tmp_path / "b", {3: 0, 97: 20, 190: 40}, seed=1)]
    (curve,) = read_curves(runs)
    assert curve.env_steps[-1] == 200
    assert (curve.low[-1], curve.high[-1]) == (20, 40)


def test_a_seed_that_stopped_early_counts_only_as_far_as_it_came(tmp_path: Path) -> None:
    runs = [_run(tmp_path / "a", {0: 0, 100: 10, 200: 20}), _run(tmp_path / "b", {0: 0, 100: 30}, seed=1)]
    (curve,) = read_curves(runs)
    np.testing.assert_allclose(curve.mean, [0, 20, 20])


def test_steps_repeated_after_a_resume_replace_the_earlier_ones(tmp_path: Path) -> None:
    path = _run(tmp_path / "a", {0: 0, 100: 1, 200: 2, 300: 3})
    _run(path, {150: 7, 250: 8})
    (curve,) = read_curves([path])
    np.testing.assert_array_equal(curve.env_steps, [0, 100, 150, 250])
    np.testing.assert_array_equal(curve.mean, [0, 1, 7, 8])


def test_a_folder_named_twice_is_one_run(tmp_path: Path) -> None:
    path = _run(tmp_path / "a", {0: 0})
    (curve,) = read_curves([path, tmp_path / "." / "a"])
    assert curve.runs == 1


def test_training_returns_are_means_over_bins_and_lines_without_an_episode_are_passed_over(tmp_path: Path) -> None:
    path = _run(tmp_path / "a", {0: 0.0})
    _run(path, {0: 0.0}, rotation=5.0)
    folder = RunFolder(path)
    for step in range(1000):
        folder.append_metrics({"env_steps": step, "kl": 3.0})
        folder.append_metrics({"env_steps": step, "episode_return": float(step % 2)})
    unrotated, rotated = read_curves([path])
    assert unrotated.training.shape == (2, 60)
    np.testing.assert_allclose(unrotated.training[1], 0.5, atol=0.05)
    assert np.all(np.diff(unrotated.training[0]) > 0)
    assert rotated.training.shape == (2, 0)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "is no run folder"),
        (lambda path: _run(path, {}), "holds no evaluations yet"),
    ],
)
def test_a_folder_without_anything_to_plot_is_refused_in_one_line(tmp_path: Path, prepare, message: str) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(UserError, match=message) as caught:
        plot_runs([_run(tmp_path / "good", {0: 0}), tmp_path / "run"], tmp_path / "out.png")
    assert str(tmp_path / "run") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folders_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folders were named"):
        plot_runs([], tmp_path / "out.png")


@pytest.mark.parametrize("name", ["out", "out.txt"])
def test_a_suffix_that_is_no_picture_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="names no picture format"):
        plot_runs([_run(tmp_path / "a", {0: 0})], tmp_path / name)


def test_the_figure_names_what_it_shows(tmp_path: Path) -> None:
    steps = {0: 0.0, 250_000: 400.0, 600_000: 700.0}
    runs = [
        _run(tmp_path / f"{algorithm}{seed}", steps, algorithm=algorithm, seed=seed)
        for algorithm in ("dreamer", "idm")
        for seed in (0, 1)
    ]
    _run(runs[-1], steps, rotation=5.0)
    runs.append(_run(tmp_path / "custom", {0: -3.0, 1000: -1.0}, task="my.tasks:maze", algorithm="soft_bird"))
    RunFolder(runs[0]).append_metrics({"env_steps": 100, "episode_return": 3.0})
    out = tmp_path / "figures" / "curves.svg"
    plot_runs(runs, out)
    svg = _texts(out)
    for text in (
        ">walker_walk<",
        ">walker_walk, images rotated ±5°<",
        ">maze<",
        ">environment steps<",
        ">dreamer, mean of 2 seeds<",
        ">idm, mean of 1–2 seeds<",
        ">soft_bird, 1 seed<",
        ">minimum to maximum<",
        ">training episodes<",
        ">published<",
        ">D4PG at 100 M<",
        ">Dreamer<",
        ">IDM at 500 k<",
    ):
        assert text in svg


def test_published_scores_can_be_left_out(tmp_path: Path) -> None:
    plot_runs([_run(tmp_path / "a", {0: 0.0, 600_000: 700.0})], tmp_path / "curves.svg", published=False)
    svg = _texts(tmp_path / "curves.svg")
    assert ">dreamer, 1 seed<" in svg
    assert ">published<" not in svg
    assert ">D4PG at 100 M<" not in svg


def test_the_preset_is_named_only_where_runs_differ_in_it(tmp_path: Path) -> None:
    paper, small = _run(tmp_path / "a", {0: 0}), _run(tmp_path / "b", {0: 0}, preset="small", task="cheetah_run")
    plot_runs([paper, small], tmp_path / "both.svg")
    assert ">dreamer · paper, 1 seed<" in _texts(tmp_path / "both.svg")
    plot_runs([paper], tmp_path / "one.svg")
    assert ">dreamer, 1 seed<" in _texts(tmp_path / "one.svg")


def test_repetitions_of_one_seed_are_called_runs(tmp_path: Path) -> None:
    plot_runs([_run(tmp_path / name, {0: 0}) for name in "ab"], tmp_path / "out.svg")
    assert ">dreamer, mean of 2 runs<" in _texts(tmp_path / "out.svg")


def test_a_picture_is_written_whole(tmp_path: Path) -> None:
    plot_runs([_run(tmp_path / "a", {0: 0.0, 100: 3.0})], tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_published_dreamer_scores_are_the_recorded_ones() -> None:
    curves = {curve.label: curve for curve in published_curves("walker_walk", 0.0, {"dreamer"})}
    assert set(curves) == {"Dreamer", "D4PG at 100 M", "PlaNet at 1 M", "SLAC at 3 M"}
    assert dict(zip(curves["Dreamer"].env_steps, curves["Dreamer"].mean, strict=True))[500_000] == 885.8
    assert curves["D4PG at 100 M"].mean == (968.3,)


def test_published_idm_scores_follow_the_angle() -> None:
    rotated = {curve.label: curve.mean for curve in published_curves("walker_walk", 5.0, {"dreamer"})}
    assert rotated == {"IDM": (527.1, 914.9), "Dreamer (IDM paper)": (372.5, 876.3), "DrQ": (122.5, 151.9)}
    unrotated = {curve.label: curve.mean for curve in published_curves("walker_walk", 0.0, {"idm"})}
    assert unrotated["IDM"] == (630, 959)
    assert published_curves("walker_walk", 10.0, {"idm"}) == []


def test_a_task_outside_the_papers_has_no_published_scores() -> None:
    assert published_curves("my.tasks:maze", 0.0, {"dreamer", "idm"}) == []
