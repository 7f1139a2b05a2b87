"""What a finished run in the Ray runtime leaves behind: system.md, section 3."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import ray
import safetensors.numpy
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cluster.main import main
from common.config_io import load_config, to_dict
from common.run_folder import RunFolder
from learner.policy import Policy
from tests.cluster.commands import snapshot

EVALUATION_KEYS = {
    "env_steps",
    "updates",
    "weights_version",
    "returns",
    "mean",
    "rotation_degrees",
    "wall_seconds",
}


@pytest.fixture
def board(smoke_run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(smoke_run / "tensorboard"))
    accumulator.Reload()
    return accumulator


def test_a_run_leaves_ray_as_it_was(smoke_run: Path) -> None:
    assert RunFolder(smoke_run).exists
    assert not ray.is_initialized()


def test_the_layout_is_that_of_the_contract_and_holds_no_pickle(smoke_run: Path) -> None:
    names = {path.name for path in smoke_run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml",
        "metrics.jsonl",
        "evaluations.jsonl",
        "checkpoints",
        "replay",
        "tensorboard",
        "videos",
        "summary.json",
    }
    suffixes = {path.suffix for path in (smoke_run / "checkpoints").rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json"}


def test_config_is_the_resolved_configuration(smoke_run: Path) -> None:
    config = load_config(smoke_run / "config.yaml")
    assert config.preset == "smoke"
    assert config.eval_rotation == (0.0, 5.0)
    assert yaml.safe_load((smoke_run / "config.yaml").read_text()) == to_dict(config)


def test_metrics_are_lines_of_json_that_go_forward(smoke_run: Path) -> None:
    lines = [json.loads(line) for line in (smoke_run / "metrics.jsonl").read_text().splitlines()]
    for key in ("env_steps", "updates", "wall_seconds", "weights_version", "replay_env_steps"):
        values = [line[key] for line in lines]
        assert values == sorted(values), key
    assert lines[-1]["env_steps"] == 1200
    trained = [line for line in lines if "model_loss" in line]
    assert len(trained) >= 8
    for line in trained:
        for key in ("kl", "image_loss", "reward_loss", "actor_loss", "value_loss", "replay_ratio"):
            assert np.isfinite(line[key]), key


def test_evaluations_name_angle_weights_and_returns(smoke_run: Path) -> None:
    lines = RunFolder(smoke_run).evaluations()
    assert all(line.keys() == EVALUATION_KEYS for line in lines)
    for angle in (0.0, 5.0):
        chosen = [line for line in lines if line["rotation_degrees"] == angle]
        versions = [line["weights_version"] for line in chosen]
        assert versions[:2] == [0, 1]
        assert versions == sorted(versions)
        assert [line["env_steps"] for line in chosen][-1] == 1200
        assert all(line["mean"] == pytest.approx(np.mean(line["returns"])) for line in chosen)
        assert len(chosen[0]["returns"]) == len(chosen[-1]["returns"]) == 2


def test_summary_says_how_it_ended(smoke_run: Path) -> None:
    summary = RunFolder(smoke_run).summary()
    assert summary is not None
    assert summary["finished"] is True
    assert (summary["task"], summary["algorithm"], summary["seed"]) == ("cartpole_balance", "dreamer", 0)
    assert summary["env_steps"] == 1200
    assert summary["updates"] >= 5 + 0.05 * (1200 - 400)
    assert summary["role_restarts"] == {}
    assert summary["replay_debt_dropped_updates"] == 0
    evaluations = [line for line in RunFolder(smoke_run).evaluations() if line["rotation_degrees"] == 0]
    means = [line["mean"] for line in evaluations]
    assert (summary["random_return"], summary["first_return"], summary["last_return"]) == (
        means[0],
        means[1],
        means[-1],
    )
    assert set(summary["resident_bytes"]) == {"collector_0", "coordinator", "evaluator", "learner", "replay_0"}
    assert all(held > 50e6 for held in summary["resident_bytes"].values())


def test_the_newest_three_checkpoints_and_the_kept_one_are_there_and_whole(smoke_run: Path) -> None:
    folder = RunFolder(smoke_run)
    summary = folder.summary()
    assert summary is not None
    last = summary["updates"]  # the learner may be ahead of what was collected
    written = sorted({*range(10, last + 1, 10), last})
    assert folder.checkpoint_updates() == sorted({10, *written[-3:]})
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert folder.skipped == []
    assert newest.updates == summary["updates"]
    assert newest.state["env_steps"] == 1200
    assert newest.state["weights_version"] == summary["weights_version"]
    parameters = safetensors.numpy.load(newest.read("parameters.safetensors"))
    assert all(np.isfinite(value).all() for value in parameters.values())


def test_replay_holds_every_environment_step(smoke_run: Path) -> None:
    line = RunFolder(smoke_run).metrics()[-1]
    assert line["replay_env_steps"] == 1200
    assert (smoke_run / "replay" / "shard-0" / "data.mdb").exists()


def test_tensorboard_shows_curves_a_reconstruction_and_evaluation_films(
    smoke_run: Path, board: EventAccumulator
) -> None:
    scalars = set(board.Tags()["scalars"])
    for tag in ("model_loss", "kl", "episode_return", "env_steps_per_second", "evaluation", "evaluation_rotation5"):
        assert tag in scalars
    assert any(tag.startswith("memory/") for tag in scalars)
    assert [event.step for event in board.Scalars("evaluation")][-1] == 1200
    strip = imageio.imread(board.Images("reconstruction")[-1].encoded_image_string)
    assert strip.shape == (3 * 64, 8 * 64, 3)
    assert strip[:64].std() > 5, "the truth, above"
    film = Image.open(io.BytesIO(board.Images("evaluation")[-1].encoded_image_string))
    assert film.format == "GIF"
    assert film.n_frames > 10


def test_every_evaluation_has_a_film(smoke_run: Path) -> None:
    names = {path.name for path in (smoke_run / "videos").iterdir()}
    assert {"random.mp4", "random_rotation5.mp4", "000000000.mp4", "000001200.mp4"} <= names
    assert len(names) == len(RunFolder(smoke_run).evaluations())
    frames = imageio.imread(smoke_run / "videos" / "000001200.mp4")
    assert frames.shape[0] == 25, "a picture before each of 25 actions of 4 control steps"
    assert frames.std() > 5


def test_a_finished_run_says_so_and_ends_well(smoke_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(smoke_run)
    args = [
        "train",
        "--config",
        str(smoke_run / "config.yaml"),
        "--run-dir",
        str(smoke_run),
    ]
    assert main(args) == 0
    assert f"{smoke_run} is finished: 1,200 environment steps" in capsys.readouterr().out
    assert snapshot(smoke_run) == before


def test_more_env_steps_go_on_with_a_finished_run(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(smoke_run, tmp_path / "run"))
    before = RunFolder(folder).summary()
    assert before is not None
    old_lines, old_evaluations = RunFolder(folder).metrics(), RunFolder(folder).evaluations()
    args = ["train", "--config", str(folder / "config.yaml"), "--run-dir", str(folder), "--eval-every", "0"]
    assert main([*args, "--env-steps", "1600", "--eval-rotation", "0"]) == 0
    shown = capsys.readouterr().out
    assert f"resumed at 1,200 environment steps, {before['updates']} updates" in shown
    after = RunFolder(folder).summary()
    assert after is not None
    assert after["finished"]
    assert after["env_steps"] == 1600
    assert after["updates"] >= before["updates"] + 0.05 * 400 - 1
    assert after["weights_version"] > before["weights_version"]
    assert after["random_return"] == before["random_return"]
    assert after["wall_seconds"] > before["wall_seconds"]
    lines = RunFolder(folder).metrics()
    assert lines[: len(old_lines)] == old_lines
    change = lines[len(old_lines)]
    assert change["config_changes"] == {
        "env_steps": {"from": 1200, "to": 1600},
        "eval_every": {"from": 400, "to": 0},
        "eval_rotation": {"from": [0.0, 5.0], "to": [0.0]},
    }
    assert (change["env_steps"], change["updates"]) == (1200, before["updates"])
    later = [line for line in lines[len(old_lines) :] if "model_loss" in line]
    assert all(line["env_steps"] >= 1200 for line in later)
    assert all(line["weights_version"] > before["weights_version"] for line in later)
    evaluations = RunFolder(folder).evaluations()
    assert evaluations[: len(old_evaluations)] == old_evaluations
    assert [line["env_steps"] for line in evaluations[len(old_evaluations) :]] == [1600]
    assert load_config(folder / "config.yaml").env_steps == 1600


def test_five_lines_of_python_act_with_a_runs_policy(smoke_run: Path) -> None:
    policy, state = Policy.load(smoke_run), None
    for _ in range(5):
        image = np.zeros((64, 64, 3), np.uint8)
        action, state = policy.act(image, state)
        assert action.shape == (1,)
        assert np.abs(action).max() <= 1
