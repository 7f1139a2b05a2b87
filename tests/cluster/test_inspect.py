"""`dreamfleet inspect` on finished runs of seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from cluster.inspection.subject import Subject, longest_episode, play
from cluster.main import main
from common.run_folder import RunFolder
from tests.cluster.commands import one_line_and_exit_2, snapshot, train

EPISODE_ROWS = 13  # a reset row and 12 steps of 2


def make_run(tmp_path_factory: pytest.TempPathFactory, *args: str) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(train(folder, "--env-steps", "600", *args)) == 0
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory)


@pytest.fixture(scope="module")
def idm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory, "--algorithm", "idm", "--training.checkpoint-every", "5")


@pytest.fixture(scope="module")
def contrastive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory, "--objective", "contrastive", "--training.checkpoint-every", "5")


@pytest.fixture(scope="module")
def inspected(run: Path, idm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Both runs looked into, the idm run first."""
    out = tmp_path_factory.mktemp("figures")
    assert main(["inspect", str(idm), "--beside", str(run), "--out", str(out), "--episodes", "2"]) == 0
    return out, json.loads((out / "inspection.json").read_text())


def inspect(run: Path, out: Path, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[dict[str, Any], str]:
    """What `--json` prints, and what else was said."""
    capsys.readouterr()
    assert main(["inspect", str(run), "--out", str(out), "--episodes", "2", "--json", *args]) == 0
    printed, said = capsys.readouterr()
    return json.loads(printed), said


def test_every_part_of_an_idm_run_leaves_its_figures_and_numbers(inspected: tuple[Path, dict[str, Any]]) -> None:
    out, numbers = inspected
    parts = ("prediction", "memories", "confidence", "evaluator")
    assert numbers["skipped"] == {}
    files = {name for part in parts for name in numbers[part]["files"]}
    assert {path.name for path in out.iterdir()} == files | {"inspection.json"}
    assert [episode["rows"] for episode in numbers["episodes"]] == [EPISODE_ROWS] * 2


def test_video_is_predicted_to_the_episodes_end(inspected: tuple[Path, dict[str, Any]]) -> None:
    out, numbers = inspected
    video = numbers["prediction"]
    assert (video["context"], video["predict"]) == (5, EPISODE_ROWS - 5)
    for name in ("open_loop", "filtered", "last_image"):
        steps = video["error_by_step"][name]
        assert len(steps) == EPISODE_ROWS - 5
        assert video["error"][name]["mean"] == pytest.approx(np.mean(steps))
        assert video["error"][name]["low"] <= video["error"][name]["mean"] <= video["error"][name]["high"]
    film = imageio.imread(out / "prediction.gif", index=None)
    assert len(film) == EPISODE_ROWS


def test_noise_that_grows_moves_pictures_further(inspected: tuple[Path, dict[str, Any]]) -> None:
    memories = inspected[1]["memories"]
    assert [run["algorithm"] for run in memories["runs"]] == ["idm", "dreamer"]
    assert memories["episodes"] == 4, "two of each model's policy"
    for run in memories["runs"]:
        for form in ("added", "derived"):
            moved = [level["to_undisturbed"]["mean"] for level in run[form]]
            assert moved == sorted(moved)
            assert [level["sigma"] for level in run[form]] == memories["levels"] == [0.1, 0.25, 0.5, 1.0]
        assert run["shown"] == run["added"][2]


def test_confidence_is_correlated_step_by_step_and_over_trajectories(inspected: tuple[Path, dict[str, Any]]) -> None:
    confidence = inspected[1]["confidence"]
    assert confidence["horizon"] == 5, "the run's own"
    assert confidence["starts"] == 2 * (EPISODE_ROWS - 5)
    assert len(confidence["spearman"]) == 6
    for found in confidence["spearman"]:
        assert len(found["by_step"]) == 5
        for each in (found["all_steps"], found["trajectory"], *found["by_step"]):
            assert -1 <= each["rho"] <= 1


def test_the_evaluator_is_judged_at_every_checkpoint(inspected: tuple[Path, dict[str, Any]], idm: Path) -> None:
    evaluator = inspected[1]["evaluator"]
    assert [each["updates"] for each in evaluator["checkpoints"]] == RunFolder(idm).checkpoint_updates()
    assert len(evaluator["checkpoints"]) == 3
    for each in evaluator["checkpoints"]:
        assert [accuracy["step"] for accuracy in each["accuracy"]] == [1, 2, 3]
        for accuracy in each["accuracy"]:
            assert accuracy["both"]["mean"] == pytest.approx((accuracy["real"] + accuracy["fake"]) / 2)
        assert each["kl"]["mean"] > 0


def test_a_seed_decides_every_number_and_the_run_stays_as_it_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run)
    first, said = inspect(run, tmp_path, capsys)
    assert said == ""
    assert "evaluator" not in first
    out = tmp_path / "new" / "folder"
    assert main(["inspect", str(run), "--out", str(out), "--episodes", "2"]) == 0
    assert json.loads((out / "inspection.json").read_text()) == first
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("predicted from actions", "on h and s", "what came", "inspection.json"):
        assert words in shown
    assert snapshot(run) == before


def test_without_a_decoder_parts_with_pictures_are_skipped_and_said(
    contrastive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, said = inspect(contrastive, tmp_path, capsys)
    assert numbers["skipped"].keys() == {"prediction", "memories"}
    assert said.count("\n") == 2
    assert "the contrastive objective" in said
    assert {found["error"] for found in numbers["confidence"]["spearman"]} == {"kl"}
    assert {path.name for path in tmp_path.iterdir()} == {"confidence.png", "inspection.json"}


def test_another_seed_and_an_older_checkpoint_give_other_numbers(
    contrastive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oldest = RunFolder(contrastive).checkpoint_updates()[0]
    first, _ = inspect(contrastive, tmp_path, capsys)
    other, _ = inspect(contrastive, tmp_path, capsys, "--seed", "4")
    older, _ = inspect(contrastive, tmp_path, capsys, "--checkpoint", str(oldest))
    assert older["updates"] == oldest < first["updates"]
    assert len({json.dumps(each["confidence"]) for each in (first, other, older)}) == 3


def test_a_behaviour_that_plans_is_looked_into_as_well(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planning = make_run(tmp_path_factory, "--algorithm", "planet", "--objective", "reward_only")
    numbers, _ = inspect(planning, tmp_path, capsys)
    assert numbers["algorithm"] == "planet"


def test_held_out_episodes_are_whole_noisy_and_the_seeds(run: Path) -> None:
    folder = RunFolder(run)
    checkpoint = folder.newest_checkpoint()
    assert checkpoint is not None
    subject = Subject.read(run, folder.load_config(), checkpoint)
    episodes = play(subject, 11, seed=0)
    assert len(episodes) == 11
    assert longest_episode(subject.config) == EPISODE_ROWS
    for episode in episodes:
        assert len(episode) == EPISODE_ROWS
        assert episode.is_first.tolist() == [True] + [False] * (EPISODE_ROWS - 1)
        assert not episode.action[0].any()
    assert len({episode.action.tobytes() for episode in episodes}) == 11
    first, again, other = (play(subject, 2, seed) for seed in (0, 0, 1))
    assert first[1].image.tobytes() == again[1].image.tobytes()
    assert first[0].action.tobytes() != other[0].action.tobytes()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--context", "0"], "--context must be between 1 and"),
        (["--context", "13"], "--context 13 leaves nothing to predict: an episode has 13 rows"),
        (["--predict", "0"], "--predict must be between 1 and"),
        (["--horizon", "13"], "--horizon 13 is longer than an episode: it has 12 steps"),
        (["--horizon", "-1"], "--horizon must be zero or more"),
        (["--episodes", "0"], "--episodes must be between 1 and"),
        (["--seed", "-1"], "--seed must be zero or more"),
        (["--noise", "0"], "--noise must be a standard deviation above 0"),
        (["--noise", "nan"], "--noise must be a standard deviation above 0"),
        (["--noise", "1e9"], "at most 100"),
        (["--levels", "0.1", "-1"], "--levels must be a standard deviation above 0"),
        (["--checkpoint", "99999"], "has no checkpoint at 99999 updates; there are: "),
        (["--beside", "nowhere"], "nowhere is no run folder"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_bad_input_ends_in_one_line_before_anything_is_computed(
    args: list[str], says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures"
    assert says in one_line_and_exit_2(["inspect", str(run), "--out", str(out), *args], capsys)
    assert not out.exists()


def test_a_folder_that_is_no_run_or_has_no_checkpoint_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "figures")]
    assert "is no run folder" in one_line_and_exit_2(["inspect", str(tmp_path / "nothing"), *out], capsys)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "config.yaml", bare)
    assert "has no complete checkpoint yet" in one_line_and_exit_2(["inspect", str(bare), *out], capsys)
    file = tmp_path / "file"
    file.touch()
    assert "is no folder" in one_line_and_exit_2(["inspect", str(run), "--out", str(file)], capsys)
    assert "cannot be made" in one_line_and_exit_2(["inspect", str(run), "--out", str(file / "below")], capsys)


def test_a_run_of_another_task_cannot_stand_beside(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("tests.tiny:make", "walker_walk"))
    line = one_line_and_exit_2(["inspect", str(run), "--beside", str(other), "--out", str(tmp_path / "f")], capsys)
    assert "--task is walker_walk there and tests.tiny:make here" in line
