"""`dreamfleet train --offline`: from a dataset it computes what it computes from the replay that the dataset is of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.main import main
from cluster.runtimes.inline import InlineRuntime
from cluster.runtimes.roles import Setting
from cluster.runtimes.runtime import Role
from common.config import Config
from common.reports import UpdateReport
from common.run_folder import RunFolder
from common.sequence import Chunk, StreamKey
from tests.cluster.commands import one_line_and_exit_2, train
from tests.cluster.stored_runs import TINY, on_redis, stored_run
from tests.redis_server import RedisServer
from tests.replay_service.episodes import make_episode
from tests.replay_service.sources import interleaved

UPDATES = 25
QUICK = ["--final-eval-episodes", "1", "--eval-every", "400", "--training.learner-threads", "1", "--replay.shards", "2"]
STEPS = ["--env-steps", "800"]  # 5 + 0.05 · (800 − 400) updates


def episodes(actor: int, count: int, *, rows: Sequence[int] = (9, 8), ends: bool = True) -> list[Chunk]:
    """Episodes of two environments in step, the last of them still open."""
    left, right = StreamKey(actor, 4, 0), StreamKey(actor, 4, 1)
    return [
        chunk
        for episode in range(count)
        for chunk in interleaved(
            make_episode(episode, rows, left, action_size=1, ends=ends),
            make_episode(episode, rows[::-1], right, action_size=1, ends=ends and episode < count - 1),
        )
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two shards, of which one has evicted chunks in the middle of episodes."""
    config = replace(TINY, seed=7, algorithm="no_value", replay=replace(TINY.replay, capacity=1200))
    stored_run(tmp_path / "source", episodes(0, 12), episodes(1, 5), config=config)
    return tmp_path / "source"


@pytest.fixture
def data(run: Path) -> Path:
    """Its export."""
    assert main(["replay", "export", str(run), "--out", str(run.parent / "data")]) == 0
    return run.parent / "data"


def offline(folder: Path, source: Path | str, *args: str) -> list[str]:
    return train(folder, "--offline", str(source), *QUICK, *STEPS, *args)


def untimed(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.endswith(("_seconds", "_per_second"))} for line in records]


def metrics_of_a_frozen_store(run: Path, like: Config) -> list[dict[str, float]]:
    """A learner on the run's own store, taken over with nobody who collects: means of every five updates."""
    shutil.copytree(run / "replay", run.parent / "taken-over")
    runtime = InlineRuntime(Setting(replace(like, offline=""), 1, "auto", run.parent / "taken-over", "cpu"))
    for role in (Role("replay", 0), Role("replay", 1), Role("learner")):
        runtime.start(role, 0)
    means = []
    for _ in range(UPDATES // 5):
        runtime.call(Role("learner"), "update", 5)
        call = runtime.wait(1)
        assert call is not None
        assert isinstance(call.value, UpdateReport)
        means.append({name: mean * 5 / 5 for name, mean in call.value.metrics.items()})
    runtime.shutdown()
    return means


@pytest.mark.parametrize("sampling", ["uniform_step", "uniform_episode", "prioritized"])
def test_a_dataset_a_run_and_its_frozen_store_give_the_same_losses_to_the_bit(
    run: Path, data: Path, tmp_path: Path, sampling: str
) -> None:
    flags = ["--replay.sampling", sampling]
    assert main(offline(tmp_path / "of-run", run, *flags)) == 0
    assert main(offline(tmp_path / "of-data", data, *flags)) == 0
    of_run, of_data = RunFolder(tmp_path / "of-run"), RunFolder(tmp_path / "of-data")
    assert untimed(of_run.metrics()) == untimed(of_data.metrics())
    assert untimed(of_run.evaluations()) == untimed(of_data.evaluations())
    frozen = metrics_of_a_frozen_store(run, of_data.load_config())
    assert of_data.metrics()[-1]["updates"] == UPDATES
    assert len(frozen) == len(of_data.metrics())
    for line, means in zip(of_data.metrics(), frozen, strict=True):
        assert {name: line[name] for name in means} == means
        assert "model_loss" in means


def test_an_offline_run_is_a_run_like_any_other(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(offline(folder, data, "--replay.shards", "1")) == 0
    shown = capsys.readouterr().out
    assert f"environment steps of {data} are stored" in shown
    lines = RunFolder(folder).metrics()
    assert [(line["env_steps"], line["updates"]) for line in lines] == [
        (400, 5), (500, 10), (600, 15), (700, 20), (800, 25)
    ]  # fmt: skip
    assert {line["replay_env_steps"] for line in lines} == {
        json.loads((data / "dataset.json").read_text())["counts"]["env_steps"]
    }
    assert {line["insert_blocked_seconds"] + line["update_blocked_seconds"] for line in lines} == {0.0}
    assert [(record["env_steps"], record["updates"]) for record in RunFolder(folder).evaluations()] == [
        (0, 0), (0, 0), (500, 5), (800, 25)
    ]  # fmt: skip
    assert main(["evaluate", str(folder), "--episodes", "1", "--json"]) == 0
    assert main(["plot", str(folder), "--out", str(tmp_path / "curves.png")]) == 0
    assert main(["replay", "verify", str(folder)]) == 0
    assert main(["replay", "export", str(folder), "--out", str(tmp_path / "again")]) == 0
    for path in data.glob("*.safetensors"):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_run_that_goes_on_needs_its_data_no_more(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(offline(folder, data)) == 0
    shutil.rmtree(data)
    assert main(offline(folder, data)) == 0  # finished
    assert main(offline(folder, data, "--env-steps", "1000")) == 0
    last = RunFolder(folder).metrics()[-1]
    assert (last["env_steps"], last["updates"]) == (1000, 35)


def test_a_store_that_lost_everything_is_filled_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    memory = ["--replay-store", "memory"]
    assert main(offline(folder, data, *memory)) == 0
    assert main(offline(folder, data, *memory, "--env-steps", "1000")) == 0
    assert RunFolder(folder).metrics()[-1]["updates"] == 35
    manifest = json.loads((data / "dataset.json").read_text())
    gone = manifest["files"].pop()
    manifest["counts"] = {
        **manifest["counts"],
        "files": len(manifest["files"]),
        "episodes": manifest["counts"]["episodes"] - (gone["finished"] and gone["first_index"] == 0),
        "fragments": manifest["counts"]["fragments"] - (not gone["finished"] or gone["first_index"] > 0),
        "chunks": manifest["counts"]["chunks"] - len(gone["chunks"]),
        "rows": manifest["counts"]["rows"] - gone["rows"],
        "env_steps": manifest["counts"]["env_steps"] - 2 * (gone["rows"] - (gone["first_index"] == 0)),
    }
    (data / "dataset.json").write_text(json.dumps(manifest))
    args = offline(folder, data, *memory, "--env-steps", "1200")
    assert main(args) == 2
    assert f"--offline {data}: it is not what the run began with" in capsys.readouterr().err


def test_from_redis_onto_redis(tmp_path: Path, redis_server: RedisServer) -> None:
    stored_run(tmp_path / "source", episodes(0, 6), config=on_redis(redis_server, f"{tmp_path.name}-source"))
    flags = ["--replay-store", "redis", "--redis-url", redis_server.url, "--replay.shards", "1"]
    assert main(offline(tmp_path / "run", tmp_path / "source", *flags)) == 0
    assert main(["replay", "verify", str(tmp_path / "run")]) == 0


# What cannot be


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line; the run folder is not there."""
    line = one_line_and_exit_2(args, capsys)
    assert not Path(args[args.index("--run-dir") + 1]).exists()
    return line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--offline", "nowhere"], "--offline: nowhere is no run folder, no dataset"),
        (["--offline", "redis://:secret@localhost:1#x"], "--offline takes a run folder or a dataset, no address"),
        (["--task", "tests.tiny:Tiny"], "it is of task tests.tiny:make, this run of task tests.tiny:Tiny"),
        (["--environment.action-repeat", "1"], "it is with an action repeat of 2, this run with an action repeat of 1"),
        (["--replay.capacity", "800"], "it holds more than --replay.capacity: "),
        (["--env-steps", "400"], "ends within --replay.prefill 400: nothing would be learnt"),
    ],
)
def test_from_elsewhere_or_of_another_layout(
    data: Path, tmp_path: Path, flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in refused(offline(tmp_path / "run", data, *flags), capsys)


def test_actions_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path / "source", make_episode(0, [9, 8]))
    words = "it is with actions of size 3, this run with actions of size 1"
    assert words in refused(offline(tmp_path / "run", tmp_path / "source"), capsys)


def test_episodes_too_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path / "source", episodes(0, 3, rows=(4, 3)))
    words = "it has no episode with the 8 rows of a training window: lower --training.batch-length"
    assert words in refused(offline(tmp_path / "run", tmp_path / "source"), capsys)


def test_whole_episodes_asked_for_and_none_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(tmp_path / "source", episodes(0, 1, ends=False))
    args = offline(tmp_path / "run", tmp_path / "source", "--replay.sampling", "uniform_episode")
    assert "with the 8 rows of a training window that has ended" in refused(args, capsys)


def test_damage(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = data / "000003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    line = refused(offline(tmp_path / "run", data), capsys)
    assert line.startswith(f"--offline {data}: shard 0, chunk ")
    assert "000003.safetensors differs from what was written" in line
    path.unlink()
    assert "000003.safetensors: No such file" in refused(offline(tmp_path / "run", data), capsys)
    (data / "dataset.json").unlink()
    assert "is no run folder, no dataset" in refused(offline(tmp_path / "run", data), capsys)


def test_other_data_on_resume(run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(offline(folder, data)) == 0
    words = f"the run folder was begun with --offline {data}, not {run}"
    assert words in one_line_and_exit_2(offline(folder, run), capsys)
    words = f"was begun with --offline {data}, not ''"
    assert words in one_line_and_exit_2(train(folder, *QUICK, "--actors", "2"), capsys)
