"""The run folder: everything that a run leaves behind and that the same command resumes from.

config.yaml  metrics.jsonl  evaluations.jsonl  checkpoints/<updates>/  replay/  tensorboard/  videos/  summary.json
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from common import checkpoint
from common.checkpoint import Checkpoint, DamagedCheckpointError
from common.config import Config
from common.config_io import load_config, read_yaml, to_yaml
from common.durable import replace_durably
from common.errors import UserError
from common.jsonl import JsonLines, as_json
from common.lock import InUseError, claim
from common.room import Room

_INCARNATION, _WEIGHTS_VERSION = ".incarnation", ".weights_version"


class RunFolder:
    """One run's folder; only the coordinator writes it. Nothing is created before `lock` or `create`.

    Attributes:
        path: the folder.
        skipped: damaged checkpoints that the last `newest_checkpoint` passed over, newest first.
        room: how whatever is written here waits on a full disk; as it comes, it does not, and is a UserError.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.skipped: list[Path] = []
        self.room = Room()
        self._metrics = JsonLines(self.path / "metrics.jsonl")
        self._evaluations = JsonLines(self.path / "evaluations.jsonl")
        self._lock: int | None = None

    @property
    def config_path(self) -> Path:
        """The resolved configuration, YAML."""
        return self.path / "config.yaml"

    @property
    def replay(self) -> Path:
        """Where the embedded replay store lives."""
        return self.path / "replay"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def videos(self) -> Path:
        """Videos of evaluation episodes."""
        return self.path / "videos"

    @property
    def metrics_target(self) -> Path:
        """Where Prometheus finds the run; there while it goes on, and after it died."""
        return self.path / "metrics_target.json"

    @property
    def exists(self) -> bool:
        """Whether a run was begun here: its configuration is there."""
        return self.config_path.exists()

    def create(self, config: Config) -> None:
        """Makes the layout and writes config.yaml, in one piece; a run already here gets the new configuration."""
        self.room.write(self.path, self._make_folders)
        self._replace(self.config_path, to_yaml(config).encode())

    def lock(self) -> None:
        """Claims the folder for this process until `unlock` or its end, and clears what a killed run left half-written.

        Raises:
            InUseError: another run uses the folder.
            UserError: it cannot be made or written.
        """
        try:
            self._make_folders()
            descriptor = claim(self.path)
        except OSError as error:
            raise UserError(f"cannot use {self.path} as a run folder: {error.strerror}") from error
        except InUseError as error:
            raise InUseError(f"{error}; stop that run or name another --run-dir") from error
        self._lock = descriptor
        checkpoint.recover(self._checkpoints)

    def unlock(self) -> None:
        """Lets another run use the folder; nothing happens when this process does not hold it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def has_counts(self) -> bool:
        """Whether the files are there by which new rows and weights are told from those of before."""
        return all((self.path / name).exists() for name in (_INCARNATION, _WEIGHTS_VERSION))

    def next_incarnation(self) -> int:
        """A number that no role of this run has had before; it is on the disk before it is used."""
        return self._count(_INCARNATION)

    def next_weights_version(self) -> int:
        """A number above that of all weights published so far, in killed lives of the run too."""
        return self._count(_WEIGHTS_VERSION)

    def write_totals(self, totals: Mapping[str, Any]) -> None:
        """Keeps sums over the whole run, killed lives included; a power loss may take the newest ones."""
        temporary = self._totals.with_name(".totals.tmp")
        temporary.write_text(as_json(totals))
        os.replace(temporary, self._totals)  # not flushed: it is written every second

    def totals(self) -> dict[str, Any]:
        """What `write_totals` wrote last; nothing where that was lost."""
        try:
            totals = json.loads(self._totals.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return totals if isinstance(totals, dict) else {}

    def write_metrics_target(self, target: Mapping[str, Any]) -> None:
        """Says in metrics_target.json where Prometheus finds the run, as its file service discovery reads it."""
        replace_durably(self.metrics_target, as_json([target]).encode())

    def remove_metrics_target(self) -> None:
        """The run is nowhere to be found any more."""
        self.metrics_target.unlink(missing_ok=True)

    def read_config(self) -> dict[str, Any]:
        """config.yaml as nested dictionaries.

        Raises:
            UserError: this is no run folder, or the file is no YAML mapping.
        """
        self._require_run()
        return read_yaml(self.config_path)

    def load_config(self) -> Config:
        """config.yaml as a configuration; fields it does not name keep their defaults.

        Raises:
            UserError: this is no run folder, or a field in it is unknown or has the wrong type.
        """
        self._require_run()
        return load_config(self.config_path)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Adds one line to metrics.jsonl."""
        self.room.write(self._metrics.path, lambda: self._metrics.append(record))

    def append_evaluation(self, record: Mapping[str, Any]) -> None:
        """Adds one line to evaluations.jsonl."""
        self.room.write(self._evaluations.path, lambda: self._evaluations.append(record))

    def write_video(self, name: str, data: bytes) -> None:
        """Writes videos/<name> in one piece."""
        self._replace(self.videos / name, data)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, oldest first."""
        return self._metrics.read()

    def evaluations(self) -> list[dict[str, Any]]:
        """The records of evaluations.jsonl, oldest first."""
        return self._evaluations.read()

    def write_checkpoint(self, updates: int, files: Mapping[str, bytes], state: Mapping[str, Any]) -> Path:
        """Writes checkpoints/<updates>/ so that a kill at any moment leaves it whole or absent.

        Args:
            updates: learner updates done; an older checkpoint of the same count is replaced.
            files: content by plain file name.
            state: JSON values with string keys, kept in state.json.
        """
        path = self._checkpoints / str(updates)
        self.room.write(path, lambda: checkpoint.write(path, updates, files, state))
        self.skipped = [damaged for damaged in self.skipped if damaged != path]
        return path

    def checkpoint_updates(self) -> list[int]:
        """Update counts of the checkpoints here, ascending, whole or not."""
        if not self._checkpoints.is_dir():
            return []
        return sorted(int(entry.name) for entry in self._checkpoints.iterdir() if entry.name.isdecimal())

    def newest_checkpoint(self) -> Checkpoint | None:
        """The newest whole checkpoint, every file verified; none if there is none. `skipped` lists the damaged ones."""
        self.skipped = []
        for updates in reversed(self.checkpoint_updates()):
            path = self._checkpoints / str(updates)
            try:
                return checkpoint.open_checkpoint(path)
            except DamagedCheckpointError:
                self.skipped.append(path)
        return None

    def whole_checkpoints(self) -> Iterator[Checkpoint]:
        """Every whole checkpoint, every file verified, oldest first; damaged ones are passed over."""
        for updates in self.checkpoint_updates():
            with contextlib.suppress(DamagedCheckpointError):
                yield checkpoint.open_checkpoint(self._checkpoints / str(updates))

    def checkpoint_at(self, updates: int) -> Checkpoint:
        """The whole checkpoint of this update count.

        Raises:
            UserError: there is none, or it is damaged.
        """
        there = self.checkpoint_updates()
        if updates not in there:
            known = ", ".join(map(str, there)) or "none"
            raise UserError(f"{self.path} has no checkpoint at {updates} updates; there are: {known}")
        try:
            return checkpoint.open_checkpoint(self._checkpoints / str(updates))
        except DamagedCheckpointError as error:
            raise UserError(f"the checkpoint is damaged: {error}") from error

    def prune_checkpoints(self, keep_newest: int = 3, keep_at: Collection[int] = ()) -> None:
        """Deletes all but the newest checkpoints and those at the update counts in `keep_at`.

        Damaged ones that `newest_checkpoint` passed over neither count nor are deleted: somebody may want to look.
        """
        sound = [
            updates for updates in self.checkpoint_updates() if self._checkpoints / str(updates) not in self.skipped
        ]
        for updates in sound[: max(0, len(sound) - keep_newest)]:
            if updates not in keep_at:
                shutil.rmtree(self._checkpoints / str(updates))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json in one piece."""
        self._replace(self.path / "summary.json", (as_json(summary, indent=2) + "\n").encode())

    def summary(self) -> dict[str, Any] | None:
        """summary.json; none before the run has written it."""
        path = self.path / "summary.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def _count(self, name: str) -> int:
        """Counts up a file of the folder; the number is on the disk before it is used."""
        path = self.path / name
        number = int(path.read_text()) + 1 if path.exists() else 1
        self._replace(path, f"{number}\n".encode())
        return number

    def _replace(self, path: Path, data: bytes) -> None:
        self.room.write(path, lambda: replace_durably(path, data))

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def _totals(self) -> Path:
        return self.path / ".totals"

    def _make_folders(self) -> None:
        for folder in (self.path, self._checkpoints, self.replay, self.tensorboard, self.videos):
            folder.mkdir(parents=True, exist_ok=True)

    def _require_run(self) -> None:
        if not self.exists:
            raise UserError(f"{self.path} is no run folder: it has no config.yaml")
