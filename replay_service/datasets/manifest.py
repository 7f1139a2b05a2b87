"""`dataset.json`: what a dataset is of, and for each of its files which rows it holds and when they were inserted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config_io import merge
from common.errors import UserError
from common.jsonl import as_json
from common.sequence import IMAGE_SHAPE, ChunkKey
from replay_service.codec import MAX_ACTION_SIZE, MAX_ROWS
from replay_service.source import Facts
from replay_service.stock import Stored

NAME = "dataset.json"
FORMAT = "dreamfleet-dataset"
VERSION = 1
_MOST = 2**63


@dataclass(frozen=True)
class Origin:
    """The run that the data comes from, as far as it is known."""

    algorithm: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Counts:
    """How much a dataset holds.

    Attributes:
        files: all of them.
        episodes: files that are an episode from its reset row to its end.
        fragments: the other files.
        chunks: chunks of all files.
        rows: rows of all files.
        env_steps: environment steps: action repeat × rows that are no reset row.
    """

    files: int = 0
    episodes: int = 0
    fragments: int = 0
    chunks: int = 0
    rows: int = 0
    env_steps: int = 0


@dataclass(frozen=True)
class EpisodeFile:
    """One file: an episode, or an unbroken piece of one.

    Attributes:
        file: its name.
        sha256: of its bytes, hexadecimal.
        key: actor, incarnation, environment, episode.
        first_index: index of its first chunk; above 0 the episode's beginning is missing.
        rows: T.
        episode_return: sum of its rewards.
        finished: whether the episode ended with its last row.
        chunks: (place, rows) of each chunk that the rows were inserted in; places order all chunks of the dataset.
    """

    file: str = ""
    sha256: str = ""
    key: tuple[int, ...] = ()
    first_index: int = 0
    rows: int = 0
    episode_return: float = 0.0
    finished: bool = False
    chunks: tuple[tuple[int, ...], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether it is an episode from its reset row to its end."""
        return self.first_index == 0 and self.finished

    def stored(self) -> list[Stored]:
        """Its chunks."""
        last = len(self.chunks) - 1
        return [
            Stored(0, place, ChunkKey._make((*self.key, self.first_index + n)), rows, self.finished and n == last)
            for n, (place, rows) in enumerate(self.chunks)
        ]


@dataclass(frozen=True)
class Manifest:
    """All of `dataset.json`.

    Attributes:
        task: what the environment was.
        action_size: A.
        action_repeat: environment steps a row.
        image_shape: of each row.
        source: the run it comes from.
        counts: of what `files` hold.
        files: all of them.
    """

    task: str = ""
    action_size: int = 0
    action_repeat: int = 0
    image_shape: tuple[int, ...] = IMAGE_SHAPE
    source: Origin = Origin()
    counts: Counts = Counts()
    files: tuple[EpisodeFile, ...] = ()

    @property
    def facts(self) -> Facts:
        """What it is of."""
        return Facts(self.task, self.action_size, self.action_repeat, self.source.algorithm, self.source.seed)


def count(files: Sequence[EpisodeFile], action_repeat: int) -> Counts:
    """What these files hold together."""
    rows, whole = sum(file.rows for file in files), sum(file.whole for file in files)
    reset_rows = sum(file.first_index == 0 for file in files)
    return Counts(
        files=len(files),
        episodes=whole,
        fragments=len(files) - whole,
        chunks=sum(len(file.chunks) for file in files),
        rows=rows,
        env_steps=action_repeat * (rows - reset_rows),
    )


def to_text(manifest: Manifest) -> str:
    """The manifest as JSON, a line a file."""
    body = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(manifest)}
    files = ",\n".join("  " + as_json(file) for file in body.pop("files"))
    return as_json(body, indent=1).removesuffix("\n}") + f',\n "files": [\n{files}\n ]\n}}\n'


def identity(manifest: Manifest) -> str:
    """A digest of the manifest, and through the files' digests of all the data: equal data have it in common."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(manifest), sort_keys=True).encode()).hexdigest()


def load(folder: Path) -> Manifest:
    """The manifest of the dataset in a folder.

    Raises:
        UserError: there is none, it is of another version, or it contradicts itself.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} is no dataset: it has no {NAME}")
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"its format is not {FORMAT}")
        if content.get("version") != VERSION:
            raise UserError(f"version {content.get('version')} is not {VERSION}, the only one this program reads")
        manifest = _parsed(content)
        _check(manifest)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: it is nested too deeply") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return manifest


def _parsed(content: Mapping[str, Any]) -> Manifest:
    body = {name: value for name, value in content.items() if name not in ("format", "version")}
    files = body.pop("files", None)
    if not isinstance(files, list):
        raise UserError("files is no list")
    _require(body, Manifest, "", leaving_out=("files",))
    for name, part in (("source", Origin), ("counts", Counts)):
        _require(body[name], part, f"{name}.")
    return dataclasses.replace(
        merge(body, Manifest()), files=tuple(_parsed_file(file, f"files[{n}].") for n, file in enumerate(files))
    )


def _parsed_file(content: Any, prefix: str) -> EpisodeFile:
    _require(content, EpisodeFile, prefix)
    return merge(content, EpisodeFile(), prefix)


def _require(content: Any, what: type, prefix: str, leaving_out: Iterable[str] = ()) -> None:
    names = [field.name for field in dataclasses.fields(what)]
    if not isinstance(content, Mapping):
        raise UserError(f"{prefix.rstrip('.')} is no mapping of {', '.join(names)}")
    for name in names:
        if name not in content and name not in leaving_out:
            raise UserError(f"{prefix}{name} is missing")


def _check(manifest: Manifest) -> None:
    """Raises UserError for a manifest that contradicts itself."""
    if not manifest.task.isprintable():
        raise UserError(f"task {manifest.task!r} holds what cannot be printed")
    if not 1 <= manifest.action_size <= MAX_ACTION_SIZE:
        raise UserError(f"action_size {manifest.action_size} is not between 1 and {MAX_ACTION_SIZE}")
    if not 1 <= manifest.action_repeat <= _MOST:
        raise UserError(f"action_repeat must be positive, not {manifest.action_repeat}")
    if manifest.image_shape != IMAGE_SHAPE:
        raise UserError(f"image_shape {list(manifest.image_shape)} is not {list(IMAGE_SHAPE)}")
    for file in manifest.files:
        _check_file(file)
    for what, values in (
        ("file", [file.file for file in manifest.files]),
        ("place", [chunk.sequence for file in manifest.files for chunk in file.stored()]),
        ("chunk", [tuple(chunk.key) for file in manifest.files for chunk in file.stored()]),
    ):
        twice = [value for value, times in Counter(values).items() if times > 1]
        if twice:
            raise UserError(f"{what} {twice[0]} is there twice")
    _check_order(manifest)
    counted = count(manifest.files, manifest.action_repeat)
    if counted != manifest.counts:
        told = dataclasses.asdict(manifest.counts)
        name, number = next(item for item in dataclasses.asdict(counted).items() if told[item[0]] != item[1])
        raise UserError(f"counts.{name} is {told[name]}, the files listed make {number}")


def _check_file(file: EpisodeFile) -> None:
    name = file.file
    if not re.fullmatch(r"[\w.-]{1,200}\.safetensors", name, re.ASCII):
        raise UserError(f"{name!r} cannot name a file of a dataset")
    end = file.first_index + len(file.chunks)
    if len(file.key) != 4 or file.first_index < 0 or not all(0 <= part < _MOST for part in (*file.key, end)):
        raise UserError(f"{name}: key {list(file.key)} is not actor, incarnation, environment, episode")
    if not file.chunks or not all(len(chunk) == 2 for chunk in file.chunks):
        raise UserError(f"{name}: chunks are no list of [place, rows]")
    if not all(0 <= place < _MOST and 1 <= rows <= MAX_ROWS for place, rows in file.chunks):
        raise UserError(f"{name}: a chunk has a place below 0, or rows that are not between 1 and {MAX_ROWS}")
    if sum(rows for _, rows in file.chunks) != file.rows:
        raise UserError(f"{name}: its chunks have {sum(rows for _, rows in file.chunks)} rows, not {file.rows}")


def _check_order(manifest: Manifest) -> None:
    """A stream's chunks must have been inserted in the order of their keys: a replay takes them in no other."""
    newest: dict[tuple[int, ...], ChunkKey] = {}
    chunks = (chunk for file in manifest.files for chunk in file.stored())
    for chunk in sorted(chunks, key=lambda chunk: chunk.sequence):
        before = newest.get(chunk.key.stream)
        if before is not None and chunk.key < before:
            raise UserError(
                f"chunk {tuple(chunk.key)} has a place behind that of {tuple(before)}, which comes after it"
            )
        newest[chunk.key.stream] = chunk.key
