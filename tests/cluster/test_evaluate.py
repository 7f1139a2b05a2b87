"""`dreamfleet evaluate` on a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from cluster.main import main
from common.run_folder import RunFolder
from learner.policy import Policy
from tests.cluster.commands import snapshot, train
from tests.tiny import make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(train(folder)) == 0
    return folder


def evaluate(run: Path, capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    """What `--json` prints."""
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", *args]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_one_angle_is_one_record_with_the_keys_of_a_runs_evaluations(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate(run, capsys, "--episodes", "3")
    last, summary = RunFolder(run).evaluations()[-1], RunFolder(run).summary()
    assert summary is not None
    assert record.keys() == last.keys()
    assert len(record["returns"]) == 3
    assert record["mean"] == pytest.approx(np.mean(record["returns"]))
    assert record["rotation_degrees"] == 0
    for key in ("env_steps", "updates", "weights_version"):
        assert record[key] == summary[key]


def test_several_angles_are_a_list_in_their_order(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = evaluate(run, capsys, "--episodes", "2", "--rotation", "0", "5", "90")
    assert [record["rotation_degrees"] for record in records] == [0, 5, 90]
    assert records[0] == {**evaluate(run, capsys, "--episodes", "2"), "wall_seconds": records[0]["wall_seconds"]}
    assert len({tuple(record["returns"]) for record in records}) == 3


def test_a_seed_decides_the_returns(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, other = (evaluate(run, capsys, "--rotation", "5", "--seed", seed) for seed in ("3", "3", "4"))
    assert first["returns"] == second["returns"]
    assert first["returns"] != other["returns"]


def test_an_angle_an_episode_is_another_than_an_angle_a_frame(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = evaluate(run, capsys, "--rotation", "60")
    episode = evaluate(run, capsys, "--rotation", "60", "--rotation-per-episode")
    assert frame["returns"] != episode["returns"]


def test_a_video_shows_the_first_episodes_side_by_side(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film.mp4"
    evaluate(run, capsys, "--episodes", "2", "--rotation", "0", "90", "--video", str(film))
    frames = imageio.imread(film, index=None)
    assert frames.shape[0] == 12, "a picture before each of 12 actions of 2 control steps"
    assert frames.shape[2] >= 2 * 64
    green = (frames[0, ..., 1].astype(int) - frames[0, ..., 0] > 80).any(axis=0)
    assert green[:64].any(), "the target's band in the first episode"
    assert green[64:].any(), "and in the second"


def test_a_gif_lasts_as_long_as_the_episode(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(run, capsys, "--episodes", "1", "--video", str(tmp_path / "film.gif"))
    gif = Image.open(tmp_path / "film.gif")
    durations = []
    for frame in range(gif.n_frames):  # alike neighbours are one frame, shown longer
        gif.seek(frame)
        durations.append(gif.info["duration"])
    assert sum(durations) == 12 * 40


def test_without_json_it_prints_a_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--episodes", "2", "--rotation", "0", "5"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for word in ("rotation", "mean", "lowest", "±0°", "±5°", "1,200 environment steps"):
        assert word in shown


def test_evaluating_leaves_the_run_as_it_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(run)
    evaluate(run, capsys, "--episodes", "1")
    assert snapshot(run) == before


def test_the_policy_acts_from_python_as_it_does_in_the_command(run: Path) -> None:
    environment, total = make(0), 0.0
    policy, state, step = Policy.load(run), None, environment.reset()
    while not step.last():
        action, state = policy.act(step.observation, state)
        step = environment.step(action)
        total += step.reward
    assert 0 < total <= 24
