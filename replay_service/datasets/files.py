"""One file of a dataset: the rows of an episode, or of an unbroken piece of one, as safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from common.sequence import IMAGE_SHAPE, ROW_FIELDS, Rows
from replay_service.codec import CodecError
from replay_service.datasets.manifest import EpisodeFile

DTYPES = {"image": np.uint8, "action": np.float32, "reward": np.float32, "discount": np.float32, "is_first": np.bool_}


def pack(rows: Rows) -> bytes:
    """A file's content."""
    packed: bytes = safetensors.numpy.save({name: np.ascontiguousarray(getattr(rows, name)) for name in ROW_FIELDS})
    return packed


def episode_return(reward: NDArray[np.float32]) -> float:
    """Sum of rewards (T,), in double precision."""
    return float(reward.sum(dtype=np.float64))


def refuse_not_finite(rows: Rows, name: str = "") -> None:
    """Raises CodecError for rows with a NaN or an infinity, which no dataset may hold."""
    for field in ("action", "reward", "discount"):
        if not np.isfinite(getattr(rows, field)).all():
            raise CodecError(f"{name}{field} holds a number that is not finite")


def check(folder: Path, file: EpisodeFile, action_size: int) -> None:
    """Reads a file and holds it against what the manifest says of it.

    Raises:
        CodecError: the file is missing, differs, or holds no rows as they must be; the text names it.
    """
    try:
        content = (folder / file.file).read_bytes()
    except OSError as error:
        raise CodecError(f"{file.file}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise CodecError(f"{file.file} differs from what was written: its SHA-256 is another")
    try:
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that numpy has not
        raise CodecError(f"{file.file} is no safetensors file: {error}") from error
    if tensors.keys() != set(ROW_FIELDS):
        raise CodecError(f"{file.file} holds {', '.join(sorted(tensors)) or 'nothing'}, not {', '.join(ROW_FIELDS)}")
    shapes: dict[str, tuple[int, ...]] = {"image": (file.rows, *IMAGE_SHAPE), "action": (file.rows, action_size)}
    for name, dtype in DTYPES.items():
        array, shape = tensors[name], shapes.get(name, (file.rows,))
        if array.dtype != dtype or array.shape != shape:
            raise CodecError(f"{file.file}: {name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    refuse_not_finite(Rows(**tensors), f"{file.file}: ")
    is_first = tensors["is_first"]
    if is_first[0] != (file.first_index == 0) or is_first[1:].any():
        raise CodecError(f"{file.file}: is_first must be true on an episode's first row, and nowhere else")
    if episode_return(tensors["reward"]) != file.episode_return:
        raise CodecError(
            f"{file.file}: its rewards make {episode_return(tensors['reward'])}, not {file.episode_return}"
        )


def read(path: Path, start: int, stop: int, names: Sequence[str] = ROW_FIELDS) -> list[NDArray[Any]]:
    """Rows `start` to `stop` of these tensors of a file that was found to be good.

    Raises:
        CodecError: it is good no more.
    """
    try:
        with safetensors.safe_open(path, "np") as file:
            return [file.get_slice(name)[start:stop] for name in names]
    except (OSError, safetensors.SafetensorError) as error:
        raise CodecError(f"{path.name}: {error}") from error
