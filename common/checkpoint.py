"""One checkpoint: a folder of files and a state.json that can tell whether all of them are whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.durable import sync_folder, write_durably

STATE_NAME = "state.json"
_TEMPORARY = ".writing-"
_REPLACED = ".replaced-"


class DamagedCheckpointError(Exception):
    """The folder holds no whole checkpoint; the text says what is wrong with it."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every file was found to be whole when it was opened.

    Attributes:
        path: its folder.
        updates: learner updates done when it was written.
        state: what `write` was given, as JSON gives it back: keys are strings, tuples are lists.
        names: the files in it, in sorted order.
    """

    path: Path
    updates: int
    state: dict[str, Any]
    names: tuple[str, ...]

    def files(self) -> dict[str, bytes]:
        """The content of all its files."""
        return {name: self.read(name) for name in self.names}

    def read(self, name: str) -> bytes:
        """The content of one of its files.

        Raises:
            KeyError: it has no file of this name.
        """
        if name not in self.names:
            raise KeyError(f"{self.path} holds no {name}, only {', '.join(self.names)}")
        return (self.path / name).read_bytes()


def write(path: Path, updates: int, files: Mapping[str, bytes], state: Mapping[str, Any]) -> None:
    """Writes a checkpoint under a temporary name and renames it to `path`, replacing one that is already there.

    Args:
        path: its folder; the parent exists.
        updates: learner updates done.
        files: content by plain file name.
        state: JSON values, finite numbers only, with string keys.

    Raises:
        ValueError: a file's name is not plain, or the state holds what JSON cannot.
    """
    for name in files:
        if not name or Path(name).name != name or name == STATE_NAME:
            raise ValueError(f"{name!r} cannot name a file of a checkpoint")
    digests = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    }
    body = {"updates": updates, "state": dict(state), "files": digests}
    sealed = json.dumps({**body, "sha256": _seal(body)}, indent=1, allow_nan=False)

    temporary = path.with_name(_TEMPORARY + path.name)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        for name, content in files.items():
            write_durably(temporary / name, content)
        write_durably(temporary / STATE_NAME, sealed.encode())
        sync_folder(temporary)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk it would be in its own way
        raise

    replaced = path.with_name(_REPLACED + path.name)
    if path.exists():
        os.rename(path, replaced)
    os.rename(temporary, path)
    sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def recover(parent: Path) -> None:
    """Removes what a killed `write` left in the folder of checkpoints, and puts back what it had set aside."""
    for leftover in parent.glob(f"{_REPLACED}*"):
        original = parent / leftover.name.removeprefix(_REPLACED)
        if original.exists():
            shutil.rmtree(leftover)
        else:
            os.rename(leftover, original)
    for leftover in parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover)


def open_checkpoint(path: Path) -> Checkpoint:
    """Reads the state and holds every file against its size and SHA-256.

    Raises:
        DamagedCheckpointError: something is missing or differs from what was written.
    """
    try:
        body = json.loads((path / STATE_NAME).read_bytes())
        if not isinstance(body, dict) or body.pop("sha256", None) != _seal(body):
            raise DamagedCheckpointError(f"{path / STATE_NAME} differs from what was written")
        for name, expected in body["files"].items():
            with open(path / name, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != expected["sha256"]:
                raise DamagedCheckpointError(f"{path / name} differs from what was written")
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{path}: {error}") from error
    return Checkpoint(path, body["updates"], body["state"], tuple(sorted(body["files"])))


def _seal(body: Mapping[str, Any]) -> str:
    """SHA-256 of the state's canonical text, so that a flipped bit in the numbers themselves is seen too."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()
