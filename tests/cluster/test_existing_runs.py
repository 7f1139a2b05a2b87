"""Run folders that are finished, in use, of another configuration or damaged: what `train` says of them."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cluster.main import main
from tests.cluster.commands import REPOSITORY, command, dreamfleet, one_line_and_exit_2, snapshot, train
from tests.full_disk import small_disk


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with three checkpoints; nobody changes it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(train(folder)) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flip(path: Path, position: int | None = None) -> None:
    """Flips one byte, in the middle if no position is given."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 0xFF
    path.write_bytes(content)


def test_a_dry_run_on_an_existing_run_leaves_it_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(run)
    assert main(train(run, "--env-steps", "5000", "--dry-run")) == 0
    assert "env_steps: 5000" in capsys.readouterr().out
    assert snapshot(run) == before


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


@pytest.mark.parametrize("name", [".incarnation", ".weights_version"])
def test_a_run_that_was_copied_without_its_hidden_files_is_refused_and_left_alone(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).unlink()
    before = snapshot(run)
    assert "copy them too, as cp -a does" in one_line_and_exit_2(train(run, "--env-steps", "2000"), capsys)
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


def cut(content: bytes) -> bytes:
    """Half of the file."""
    return content[: len(content) // 2]


def without_a_page(content: bytes) -> bytes:
    """A page of zeros in the middle of each chunk's images: nothing that LMDB itself would miss."""
    chunks = [match.start() for match in re.finditer(b"DFC2", content)]
    assert chunks
    for start in chunks:
        page = (start // 4096 + 5) * 4096
        content = content[:page] + bytes(4096) + content[page + 4096 :]
    return content


def garbage(content: bytes) -> bytes:
    """As many bytes of something else."""
    return b"these are not the pages you are looking for\n" * (len(content) // 44)


SLOW_ON_RAY = pytest.param("ray", marks=pytest.mark.slow)


@pytest.mark.parametrize("damage", [cut, without_a_page, garbage])
@pytest.mark.parametrize("runtime", ["inline", SLOW_ON_RAY])
def test_a_damaged_replay_is_refused_and_named(run: Path, runtime: str, damage: Callable[[bytes], bytes]) -> None:
    """In a process of its own: LMDB must not have mapped the file before, and Ray ends with its driver."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "runtime": runtime}, sort_keys=False))
    data = run / "replay" / "shard-0" / "data.mdb"
    data.write_bytes(damage(data.read_bytes()))
    args = [argument if argument != "inline" else runtime for argument in train(run, "--env-steps", "2000")]
    ended = dreamfleet(args)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    if damage is without_a_page:  # found when the chunk is first read
        assert "chunk number" in ended.stderr
        assert "of the replay is damaged" in ended.stderr
    else:
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
        holder.communicate(timeout=600)


def test_a_run_without_a_checkpoint_cannot_be_evaluated(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints")
    assert "has no complete checkpoint yet" in one_line_and_exit_2(["evaluate", str(run)], capsys)


def test_no_room_for_what_a_command_writes_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        disk.fill()
        line = one_line_and_exit_2(["plot", str(run), "--out", str(disk.folder / "curves.png")], capsys)
    assert line.startswith("no room on the disk for ")
