import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import checkpoint
from common.errors import UserError
from common.presets import PRESETS
from common.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create(PRESETS["smoke"]())
    return folder


def test_create_makes_the_layout_and_the_configuration_reads_back(folder: RunFolder) -> None:
    assert folder.load_config() == PRESETS["smoke"]()
    assert folder.read_config()["world_model"]["deter"] == 32
    assert folder.replay.is_dir()
    assert folder.tensorboard.is_dir()
    assert folder.videos.is_dir()


def test_looking_at_a_folder_creates_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "none")
    assert not folder.exists
    assert folder.newest_checkpoint() is None
    assert folder.metrics() == []
    assert folder.summary() is None
    assert not folder.path.exists()


def test_a_folder_without_a_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run folder: it has no config\.yaml"):
        RunFolder(tmp_path).load_config()


def test_a_locked_folder_is_refused_and_names_the_owner(folder: RunFolder) -> None:
    folder.lock()
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}") as caught:
        RunFolder(folder.path).lock()
    assert "\n" not in str(caught.value)
    folder.unlock()
    RunFolder(folder.path).lock()


def test_a_killed_process_leaves_no_lock(folder: RunFolder) -> None:
    program = f"from common.run_folder import RunFolder; RunFolder({str(folder.path)!r}).lock(); import os; os.abort()"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode < 0
    folder.lock()


def test_a_file_in_the_folders_place_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("")
    with pytest.raises(UserError, match="cannot use"):
        RunFolder(path).lock()


def test_records_come_back_in_order(folder: RunFolder) -> None:
    for step in range(3):
        folder.append_metrics({"env_steps": step, "kl": np.float32(0.5)})
    folder.append_evaluation({"env_steps": 1, "returns": [1.0, 2.0]})
    assert folder.metrics() == [{"env_steps": step, "kl": 0.5} for step in range(3)]
    assert folder.evaluations() == [{"env_steps": 1, "returns": [1.0, 2.0]}]


def test_numbers_that_json_lacks_are_written_as_null(folder: RunFolder) -> None:
    folder.append_metrics({"model_loss": float("nan"), "values": np.array([1.0, np.inf])})
    assert folder.metrics() == [{"model_loss": None, "values": [1.0, None]}]
    assert "NaN" not in (folder.path / "metrics.jsonl").read_text()


def test_a_line_torn_at_any_byte_is_skipped_and_mended(folder: RunFolder) -> None:
    path = folder.path / "metrics.jsonl"
    folder.append_metrics({"step": 1})
    first = path.read_bytes()
    folder.append_metrics({"step": 2, "nested": {"kl": 0.25}})
    whole = path.read_bytes()
    for cut in range(len(first), len(whole)):
        path.write_bytes(whole[:cut])
        survivors = folder.metrics()
        assert len(survivors) == (2 if cut == len(whole) - 1 else 1)
        folder.append_metrics({"step": 3})
        assert folder.metrics() == [*survivors, {"step": 3}]


def test_a_torn_line_longer_than_one_read_is_mended(folder: RunFolder) -> None:
    path = folder.path / "metrics.jsonl"
    folder.append_metrics({"step": 1})
    with open(path, "ab") as file:
        file.write(b'{"values": [' + b"1, " * 100_000)
    folder.append_metrics({"step": 2})
    assert folder.metrics() == [{"step": 1}, {"step": 2}]


def test_a_foreign_line_in_the_middle_is_an_error_that_names_it(folder: RunFolder) -> None:
    (folder.path / "metrics.jsonl").write_text('{"step": 1}\nhello\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        folder.metrics()


def test_a_checkpoint_reads_back(folder: RunFolder) -> None:
    path = folder.write_checkpoint(20, {"learner.safetensors": b"\x00weights"}, {"env_steps": 400, "generator": 2**100})
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert newest.path == path == folder.path / "checkpoints" / "20"
    assert newest.updates == 20
    assert newest.state == {"env_steps": 400, "generator": 2**100}
    assert newest.names == ("learner.safetensors",)
    assert newest.read("learner.safetensors") == b"\x00weights"
    assert folder.skipped == []
    with pytest.raises(KeyError, match="holds no optimiser"):
        newest.read("optimiser")


def test_the_newest_is_by_number_not_by_name(folder: RunFolder) -> None:
    for updates in (900, 1000, 20):
        folder.write_checkpoint(updates, {}, {})
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert newest.updates == 1000


def _flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _edit_state(path: Path) -> None:
    body = json.loads(path.read_text())
    body["state"]["env_steps"] += 1
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("weights", _flip_byte),
        ("weights", _cut_short),
        ("weights", Path.unlink),
        ("state.json", _flip_byte),
        ("state.json", _cut_short),
        ("state.json", Path.unlink),
        ("state.json", _edit_state),
        ("state.json", lambda path: path.write_text("[]")),
    ],
)
def test_a_damaged_checkpoint_is_skipped_and_listed(folder: RunFolder, name: str, damage) -> None:
    for updates in (20, 40):
        folder.write_checkpoint(updates, {"weights": b"abcdefgh"}, {"env_steps": 100 * updates})
    damage(folder.path / "checkpoints" / "40" / name)
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert newest.updates == 20
    assert folder.skipped == [folder.path / "checkpoints" / "40"]


def test_whole_checkpoints_come_oldest_first_without_the_damaged_ones(folder: RunFolder) -> None:
    for updates in (40, 20, 100):
        folder.write_checkpoint(updates, {"weights": b"abcdefgh"}, {})
    _flip_byte(folder.path / "checkpoints" / "40" / "weights")
    assert [each.updates for each in folder.whole_checkpoints()] == [20, 100]


def test_a_checkpoint_is_found_by_its_count_or_refused_in_one_line(folder: RunFolder) -> None:
    with pytest.raises(UserError, match="has no checkpoint at 20 updates; there are: none"):
        folder.checkpoint_at(20)
    for updates in (20, 40):
        folder.write_checkpoint(updates, {"weights": b"abcdefgh"}, {})
    assert folder.checkpoint_at(20).updates == 20
    with pytest.raises(UserError, match="has no checkpoint at 30 updates; there are: 20, 40"):
        folder.checkpoint_at(30)
    _flip_byte(folder.path / "checkpoints" / "40" / "weights")
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        folder.checkpoint_at(40)


def test_a_checkpoint_of_the_same_count_is_replaced(folder: RunFolder) -> None:
    folder.write_checkpoint(0, {"weights": b"old", "extra": b""}, {"env_steps": 100})
    folder.write_checkpoint(0, {"weights": b"new"}, {"env_steps": 200})
    newest = folder.newest_checkpoint()
    assert newest is not None
    assert newest.read("weights") == b"new"
    assert newest.names == ("weights",)
    assert [entry.name for entry in (folder.path / "checkpoints").iterdir()] == ["0"]


@pytest.mark.parametrize("operation", ["rename", "mkdir", "write_durably", "sync_folder"])
def test_a_kill_during_a_replacement_leaves_the_old_or_the_new_checkpoint(
    folder: RunFolder, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of every step that touches the disk is made the last one in turn."""
    owner = {"rename": os, "mkdir": Path}.get(operation, checkpoint)
    real = getattr(owner, operation)
    for survives in range(5):
        folder.write_checkpoint(7, {"weights": b"old"}, {})
        calls = 0

        def dies(*arguments, survives: int = survives, **keywords):
            nonlocal calls
            if calls == survives:
                raise KeyboardInterrupt
            calls += 1
            return real(*arguments, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(owner, operation, dies)
            try:
                folder.write_checkpoint(7, {"weights": b"new"}, {})
                finished = True
            except KeyboardInterrupt:
                finished = False
        folder.lock()
        newest = folder.newest_checkpoint()
        assert newest is not None
        assert newest.read("weights") in ((b"new",) if finished else (b"old", b"new"))
        assert folder.skipped == []
        assert [entry.name for entry in (folder.path / "checkpoints").iterdir()] == ["7"]
        folder.unlock()


def test_locking_removes_what_a_killed_write_left(folder: RunFolder) -> None:
    leftover = folder.path / "checkpoints" / ".writing-40"
    leftover.mkdir()
    (leftover / "weights").write_bytes(b"half")
    folder.lock()
    assert not leftover.exists()


@pytest.mark.parametrize("name", ["../weights", "a/b", "state.json", ""])
def test_a_file_cannot_leave_its_checkpoint(folder: RunFolder, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        folder.write_checkpoint(1, {name: b""}, {})


def test_pruning_keeps_the_newest_and_the_named(folder: RunFolder) -> None:
    for updates in (10, 20, 30, 40, 50):
        folder.write_checkpoint(updates, {}, {})
    folder.prune_checkpoints(keep_newest=3, keep_at=(10,))
    assert folder.checkpoint_updates() == [10, 30, 40, 50]


def test_pruning_does_not_count_damaged_checkpoints(folder: RunFolder) -> None:
    for updates in (10, 20, 30):
        folder.write_checkpoint(updates, {"weights": b"abc"}, {})
    (folder.path / "checkpoints" / "30" / "weights").unlink()
    folder.newest_checkpoint()
    folder.prune_checkpoints(keep_newest=2)
    assert folder.checkpoint_updates() == [10, 20, 30]


def test_the_summary_reads_back(folder: RunFolder) -> None:
    assert folder.summary() is None
    folder.write_summary({"finished": True, "best": np.float64(3.5), "kl": float("nan")})
    assert folder.summary() == {"finished": True, "best": 3.5, "kl": None}
