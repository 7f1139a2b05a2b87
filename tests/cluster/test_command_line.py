"""The `dreamfleet` command and bad input: one line, exit code 2, nothing written."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.main import COMMANDS, main
from common.config_io import from_dict
from common.presets import smoke
from tests.cluster.commands import REPOSITORY, command, one_line_and_exit_2, train
from tests.cluster.stored_runs import stored_run
from tests.replay_service.sources import some_chunks

# The command itself


def test_no_command_shows_the_usage_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_train_help_shows_flags_with_their_docs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--replay.chunk-rows", "--eval-rotation", "--run-dir", "Updates per environment step", "--dry-run"):
        assert word in shown


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'trian': choose from train" in one_line_and_exit_2(["trian"], capsys)


LONG = "x" * 300


@pytest.mark.parametrize(
    "args",
    [
        ["train", "--preset", "smoke", "--run-dir", LONG],
        ["replay", "stats", LONG],
        ["replay", "export", "run", "--out", LONG],
        ["replay", "import", LONG, "--preset", "smoke", "--run-dir", "new"],
        ["evaluate", LONG],
        ["plot", LONG],
    ],
    ids=lambda args: " ".join(args)[:20],
)
def test_a_name_that_is_too_long_is_one_line(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored_run(tmp_path / "run", some_chunks())
    monkeypatch.chdir(tmp_path)
    assert LONG in one_line_and_exit_2(args, capsys)


@pytest.mark.parametrize(("number", "path"), [(errno.EIO, "data"), (errno.ENOENT, "data"), (errno.EACCES, None)])
def test_trouble_that_is_not_with_a_users_path_is_not_hidden(
    number: int, path: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: list[str]) -> int:
        raise OSError(number, "trouble", path)

    monkeypatch.setattr("cluster.plot.main", fail)
    with pytest.raises(OSError, match="trouble"):
        main(["plot"])


def test_a_folder_that_may_not_be_searched_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: list[str]) -> int:
        raise OSError(errno.EACCES, "Permission denied", "closed/data")

    monkeypatch.setattr("cluster.plot.main", fail)
    assert one_line_and_exit_2(["plot"], capsys) == "closed/data: Permission denied"


# Bad values

BAD_FLAGS = [
    (["--algorithm", "dremer"], "did you mean dreamer?"),
    (["--preset", "smok"], "did you mean smoke?"),
    (["--preset"], "--preset"),
    (["--objective", "pixels"], "unknown objective 'pixels'"),
    (["--replay-store", "ldmb"], "did you mean lmdb?"),
    (["--runtime", "threads"], "--runtime"),
    (["--task", "walker_wlak"], "did you mean walker_walk"),
    (["--task", "tests.tiny:maker"], "no callable 'maker'"),
    (["--task", "no.such.module:make"], "cannot import 'no.such.module'"),
    (["--evn-steps", "10"], "--env-steps"),
    (["--no-such-flag"], "--no-such-flag"),
    (["--env-steps", "-5"], "--env-steps must be positive, not -5"),
    (["--env-steps", "0"], "--env-steps must be positive, not 0"),
    (["--env-steps", "many"], "--env-steps"),
    (["--env-steps", "1.5"], "--env-steps"),
    (["--env-steps", "1" + "0" * 400], "--env-steps must be at most 1e+12"),
    (["--actors", "0"], "--actors must be positive, not 0"),
    (["--actors", "1000000"], "--actors must be at most 10000"),
    (["--envs-per-actor", "-1"], "--envs-per-actor must be positive"),
    (["--train-ratio", "nan"], "--train-ratio must be a finite number, not nan"),
    (["--train-ratio", "inf"], "--train-ratio must be a finite number, not inf"),
    (["--train-ratio", "0"], "--train-ratio must be positive"),
    (["--train-ratio", "1e9"], "--train-ratio must be at most 100"),
    (["--seed", "-1"], "--seed must be zero or more"),
    (["--horizon", "1"], "--horizon must be at least 2"),
    (["--eval-rotation", "0", "nan"], "--eval-rotation must be a finite number"),
    (["--eval-rotation", "400"], "--eval-rotation must be at most 180"),
    (["--eval-episodes", "0"], "--eval-episodes must be positive"),
    (["--keep-at", "-3"], "--keep-at must be positive"),
    (["--world-model.learning-rate", "-1e-3"], "--world-model.learning-rate must be positive"),
    (["--dreamer.gamma", "1.5"], "--dreamer.gamma must be at most 1"),
    (["--environment.hang-seconds", "0"], "--environment.hang-seconds must be positive"),
    (["--replay.capacity", "10"], "--replay.capacity 10 is below --replay.prefill 400"),
    (["--replay.prefill", "1", "--replay.capacity", "20"], "may never hold a whole window"),
    (["--training.batch-length", "600"], "longer than an episode"),
    (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N"),
    (["--config", "/no/such/file.yaml"], "/no/such/file.yaml is not a file"),
]


@pytest.mark.parametrize(("args", "words"), BAD_FLAGS, ids=[" ".join(args)[:40] for args, _ in BAD_FLAGS])
def test_bad_flags_end_with_one_line_and_no_run_folder(
    args: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert words in one_line_and_exit_2(train(folder, *args), capsys)
    assert not folder.exists()


def test_a_run_folder_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--run-dir" in one_line_and_exit_2(["train", "--preset", "smoke"], capsys)


def test_a_gpu_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = one_line_and_exit_2(train(tmp_path / "run", "--device", "cuda"), capsys)
    assert "PyTorch sees no GPU here; use --device cpu" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hroizon: 3\n", "unknown field hroizon; did you mean horizon?"),
        ("replay:\n  chunk_row: 3\n", "unknown field replay.chunk_row; did you mean replay.chunk_rows?"),
        ("horizon: many\n", "horizon: 'many' is no whole number"),
        ("- 1\n- 2\n", "holds no mapping"),
        ("horizon: [", "not valid YAML"),
        ("preset: huge\n", "unknown preset 'huge'"),
        ("horizon: -3\n", "--horizon must be positive"),
    ],
)
def test_bad_configuration_files_end_with_one_line(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text(text)
    args = ["train", "--config", str(file), "--runtime", "inline", "--run-dir", str(folder)]
    assert words in one_line_and_exit_2(args, capsys)
    assert not folder.exists()


# Dry runs


def test_a_dry_run_prints_the_configuration_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "--preset", "smoke", "--seed", "3", "--run-dir", str(folder), "--dry-run"]) == 0
    shown = from_dict(yaml.safe_load(capsys.readouterr().out))
    assert shown.seed == 3
    assert shown.training == smoke().training
    assert not folder.exists()


# A machine without OpenGL


@pytest.mark.parametrize("gl", ["egl", "osmesa", "auto"])
def test_a_machine_without_opengl_gets_one_line_that_says_what_to_install(tmp_path: Path, gl: str) -> None:
    broken = tmp_path / "libraries"
    broken.mkdir()
    for name in ("libEGL.so.1", "libEGL.so", "libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"):
        (broken / name).write_bytes(b"")
    args = ["train", "--preset", "smoke", "--runtime", "inline", "--environment.gl", gl]
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    ended = subprocess.run(
        command([*args, "--run-dir", str(tmp_path / "run")]),
        cwd=REPOSITORY,
        env={**environment, "LD_LIBRARY_PATH": str(broken)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "no OpenGL backend draws cartpole_balance" in ended.stderr
    assert "install libegl1 for EGL or libosmesa6 for OSMesa" in ended.stderr
    assert not (tmp_path / "run").exists()


# The other commands


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["evaluate"], "Missing from dreamfleet evaluate: PATH Run folder"),
        (["evaluate", "/no/such/run"], "/no/such/run is no run folder"),
        (["evaluate", "x", "--episodes", "0"], "--episodes must be between 1 and 10000, not 0"),
        (["evaluate", "x", "--rotation", "nan"], "--rotation must be between 0 and 180 degrees, not nan"),
        (["evaluate", "x", "--seed", "-1"], "--seed must be zero or more, not -1"),
        (["evaluate", "x", "--video", "film.avi"], "--video must end in .mp4 or .gif, not 'film.avi'"),
        (["evaluate", "x", "--video", "/no/such/folder/film.mp4"], "/no/such/folder"),
        (["benchmark"], "actors"),
        (["benchmark", "gpu"], "gpu"),
        (["benchmark", "learner", "--rounds", "0"], "--rounds must be between 1 and 100000, not 0"),
        (["benchmark", "learner", "--offline", "x"], "--offline is for training: every benchmark makes its own data"),
        (["benchmark", "system", "--learners", "2"], "--learners is for training: benchmarks measure one learner"),
        (["benchmark", "system", "--seconds", "nan"], "--seconds must be between 1 and 100000, not nan"),
        (["benchmark", "actors", "--processes", "-2"], "--processes must be between 0 and 1024, not -2"),
        (["benchmark", "learner", "--preset", "samll"], "did you mean small?"),
        (["plot", "/no/such/run"], "/no/such/run"),
        (["doctor", "--verbose"], "--verbose"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_other_commands_refuse_bad_input_in_one_line(
    args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in one_line_and_exit_2(args, capsys)
