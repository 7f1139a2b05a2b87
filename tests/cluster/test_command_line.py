"""The `dreamfleet` command and bad input: one line, exit code 2, nothing written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.main import COMMANDS, main
from common.config_io import from_dict
from common.presets import smoke
from tests.cluster.commands import REPOSITORY, SMALL_RUN, command, dreamfleet, one_line_and_exit_2, snapshot


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with three checkpoints; nobody changes it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *SMALL_RUN, "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def train(folder: Path, *args: str) -> list[str]:
    return ["train", *SMALL_RUN, "--run-dir", str(folder), *args]


def flip(path: Path, position: int | None = None) -> None:
    """Flips one byte, in the middle if no position is given."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 0xFF
    path.write_bytes(content)


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


@pytest.mark.skipif("os.path.exists('/dev/nvidia0')")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_dry_run_on_an_existing_run_leaves_it_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(run)
    assert main(train(run, "--env-steps", "5000", "--dry-run")) == 0
    assert "env_steps: 5000" in capsys.readouterr().out
    assert snapshot(run) == before


# Run folders that are not as they must be


def test_a_finished_run_says_so_and_is_left_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(run)
    assert main(train(run)) == 0
    assert f"{run} is finished: 1,200 environment steps (raise --env-steps to go on)" in capsys.readouterr().out
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--task", "cartpole_swingup"], "begun with --task tests.tiny:make, not cartpole_swingup"),
        (["--seed", "8"], "begun with --seed 0, not 8"),
        (["--train-ratio", "0.1"], "begun with --train-ratio 0.05, not 0.1"),
        (["--replay.chunk-rows", "7"], "begun with --replay.chunk-rows 10, not 7"),
        (["--world-model.free-nats", "1"], "begun with --world-model.free-nats 3.0, not 1.0"),
        (["--environment.rendering", "full"], "begun with --environment.rendering fast, not full"),
    ],
)
def test_a_run_folder_of_another_configuration_is_refused_and_left_alone(
    run: Path, args: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(run)
    assert words in one_line_and_exit_2(train(run, "--env-steps", "2000", *args), capsys)
    assert snapshot(run) == before


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run"
    file.write_text("mine")
    for folder in (file, file / "below"):
        assert f"cannot use {folder} as a run folder" in one_line_and_exit_2(train(folder), capsys)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"task: [", "not valid YAML"),
        (b"\xff\xfe\x00\x01", "not valid YAML"),
        (b"", "holds no mapping"),
        (b"task: 3\n", "task: 3 is no string"),
        (b"tsak: walker_walk\n", "unknown field tsak; did you mean task?"),
    ],
)
def test_a_damaged_configuration_is_refused_and_left_alone(
    run: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "config.yaml").write_bytes(content)
    before = snapshot(run)
    line = one_line_and_exit_2(train(run), capsys)
    assert words in line
    assert str(run / "config.yaml") in line
    assert snapshot(run) == before


@pytest.mark.parametrize("damage", ["flipped parameters", "truncated parameters", "flipped state", "no optimisers"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(
    run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, before = sorted((run / "checkpoints").iterdir(), key=lambda path: -int(path.name))[:2]
    parameters = newest / "parameters.safetensors"
    match damage:
        case "flipped parameters":
            flip(parameters)
        case "truncated parameters":
            parameters.write_bytes(parameters.read_bytes()[:-100])
        case "flipped state":
            flip(newest / "state.json")
        case "no optimisers":
            (newest / "optimisers.safetensors").unlink()
    assert main(train(run, "--env-steps", "1300")) == 0
    shown = capsys.readouterr().out
    assert f"checkpoint {newest} is damaged: using the one before it" in shown
    assert f"{before.name} updates" in shown
    assert newest.exists(), "somebody may want to look at it"


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_left_alone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for checkpoint in (run / "checkpoints").iterdir():
        flip(checkpoint / "parameters.safetensors", 50)
    before = snapshot(run)
    line = one_line_and_exit_2(train(run, "--env-steps", "2000"), capsys)
    assert f"every checkpoint in {run / 'checkpoints'} is damaged" in line
    assert snapshot(run) == before


@pytest.mark.parametrize("runtime", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_damaged_replay_is_refused_and_named(run: Path, runtime: str) -> None:
    """In a process of its own: LMDB must not have mapped the file before, and Ray ends with its driver."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "runtime": runtime}, sort_keys=False))
    data = run / "replay" / "shard-0" / "data.mdb"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    args = [argument if argument != "inline" else runtime for argument in train(run, "--env-steps", "2000")]
    ended = dreamfleet(args)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert "this replay is damaged" in ended.stderr
    assert str(run / "replay") in ended.stderr


def test_a_run_folder_in_use_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    holder = subprocess.Popen(
        command(train(run, "--env-steps", "1000000")),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert holder.stdout is not None
        while "resumed" not in (line := holder.stdout.readline()):
            assert line, "the first run ended"
        line = one_line_and_exit_2(train(run, "--env-steps", "1000000"), capsys)
        assert f"{run} is in use by process {holder.pid} on" in line
        assert holder.poll() is None
    finally:
        holder.send_signal(signal.SIGINT)
        holder.communicate(timeout=60)


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
        timeout=120,
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


def test_a_run_without_a_checkpoint_cannot_be_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "has no complete checkpoint yet" in one_line_and_exit_2(["evaluate", str(run)], capsys)
