"""The configuration of a run: preset, then file, then flags; and what may change when it resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import MAY_CHANGE_ON_RESUME, as_record, changes_on_resume, parse_train, resolve_base
from cluster.validation import flag, leaves
from common.config_io import to_yaml
from common.errors import UserError
from common.presets import PRESETS, paper, small, smoke
from tests.cluster.test_validation import changed

RUN = ["--run-dir", "somewhere"]
ON_RESUME: dict[str, Any] = {
    "env_steps": 2_000_000,
    "actors_min": 2,
    "actors_max": 16,
    "actors": 8,
    "envs_per_actor": 2,
    "learners": 2,
    "device": "cuda",
    "precision": "bf16",
    "compile": "default",
    "replay_on_device": "off",
    "ray_address": "auto",
    "ray_placement": "labels",
    "redis_url": "redis://elsewhere:6379",
    "redis_timeout": 10.0,
    "eval_every": 5000,
    "eval_episodes": 3,
    "final_eval_episodes": 4,
    "eval_rotation": (0.0, 5.0),
    "keep_at": (100,),
    "metrics_port": 0,
    "metrics_host": "0.0.0.0",
    "acting.threads": 2,
    "environment.gl": "osmesa",
    "environment.hang_seconds": 10.0,
    "replay.sync": "never",
    "replay.sync_seconds": 5.0,
    "training.checkpoint_every": 10,
    "training.learner_threads": 3,
}


def another(name: str, value: Any) -> Any:
    """Some other value of the field."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return (*value, "x") if isinstance(value, tuple) else f"{value}x"


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_alone_is_that_preset(name: str) -> None:
    assert parse_train(["--preset", name, *RUN]).settings == PRESETS[name]()


def test_paper_is_the_preset_that_need_not_be_named() -> None:
    arguments = parse_train(RUN)
    assert arguments.settings == paper()
    assert (arguments.run_dir, arguments.config, arguments.dry_run) == (Path("somewhere"), "", False)


def test_flags_come_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: small\nhorizon: 7\nseed: 5\nreplay:\n  chunk_rows: 11\n")
    found = parse_train(["--config", str(file), "--seed", "9", "--replay.prefill", "6000", *RUN]).settings
    expected = dataclasses.replace(small(), horizon=7, seed=9)
    assert found == dataclasses.replace(
        expected, replay=dataclasses.replace(expected.replay, chunk_rows=11, prefill=6000)
    )


def test_a_preset_flag_beats_the_preset_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: small\nseed: 5\n")
    assert resolve_base(["--preset=smoke", "--config", str(file)]) == dataclasses.replace(smoke(), seed=5)


def test_a_saved_configuration_gives_the_same_run_again(tmp_path: Path) -> None:
    wanted = dataclasses.replace(smoke(), seed=3, eval_rotation=(0.0, 5.0), keep_at=(20, 40))
    (tmp_path / "config.yaml").write_text(to_yaml(wanted))
    assert parse_train(["--config", str(tmp_path / "config.yaml"), *RUN]).settings == wanted


def test_flags_with_fixed_spelling(tmp_path: Path) -> None:
    line = (
        "--task cheetah_run --algorithm dreamer --objective reconstruction --horizon 12 --preset small --seed 4 "
        "--env-steps 50000 --runtime inline --ray-address auto --actors 2 --envs-per-actor 3 --train-ratio 0.2 "
        "--replay-store memory --device cpu --eval-every 1000 --eval-episodes 2 --eval-rotation 0 5 --keep-at 10 20 "
        "--environment.time-limit 400"
    )
    found = parse_train([*line.split(), *RUN]).settings
    assert (found.task, found.runtime, found.replay_store, found.device) == ("cheetah_run", "inline", "memory", "cpu")
    assert (found.horizon, found.seed, found.env_steps, found.train_ratio) == (12, 4, 50_000, 0.2)
    assert (found.actors, found.envs_per_actor, found.environments) == (2, 3, 6)
    assert (found.eval_every, found.eval_episodes, found.eval_rotation) == (1000, 2, (0.0, 5.0))
    assert (found.keep_at, found.environment.time_limit, found.ray_address) == ((10, 20), 400, "auto")


def test_what_may_change_on_resume_is_what_this_file_tries() -> None:
    assert set(ON_RESUME) == MAY_CHANGE_ON_RESUME


@pytest.mark.parametrize("name", sorted(ON_RESUME))
def test_changes_that_a_resumed_run_takes_are_told(name: str) -> None:
    before, after = dict(leaves(paper()))[name], ON_RESUME[name]
    changes = changes_on_resume(paper(), changed(name, after))
    assert changes == {name: (before, after)}
    assert as_record(changes) == {name: {"from": before, "to": after}}


@pytest.mark.parametrize("name", sorted({name for name, _ in leaves(paper())} - set(ON_RESUME)))
def test_everything_else_is_refused_with_the_field_and_both_values(name: str) -> None:
    before = dict(leaves(paper()))[name]
    after = another(name, before)
    with pytest.raises(UserError) as raised:
        changes_on_resume(paper(), changed(name, after))
    shown = before if before != "" else "''"
    assert f"begun with {flag(name)} {shown}, not {after}:" in str(raised.value)


def test_the_same_configuration_changes_nothing() -> None:
    assert changes_on_resume(small(), small()) == {}


@pytest.mark.parametrize(
    ("args", "chunk_rows", "capacity"),
    [
        ([], 50, 2_000_000),
        (["--replay-store", "redis"], 16, 2_000_000),
        (["--replay-store", "redis", "--preset", "smoke"], 10, 10_000),
        (["--algorithm", "bird"], 50, 100_000),
    ],
)
def test_a_preset_is_as_its_algorithm_and_its_store_ask_for(args: list[str], chunk_rows: int, capacity: int) -> None:
    replay = resolve_base(args).replay
    assert (replay.chunk_rows, replay.capacity) == (chunk_rows, capacity)
