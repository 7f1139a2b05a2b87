"""An append-only file of one JSON object a line that survives a kill in the middle of a line."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_TAIL_BYTES = 1 << 16


def _is_whole(line: bytes) -> bool:
    """Whether a line without its newline holds a complete JSON object; an object's prefix never does."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    """The value in JSON's own types; NaN and infinities become null, because JSON has neither."""
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def as_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON text; numpy's numbers and arrays are taken, NaN and infinities become null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


class JsonLines:
    """Records of one growing file; the file appears with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line with one write, after mending a last line that an earlier kill left torn.

        Raises:
            OSError: the disk took only a part of the line; the next call removes that part.
        """
        line = as_json(record).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            if self._mend(file.fileno()):
                line = b"\n" + line
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def read(self) -> list[dict[str, Any]]:
        """All records; a torn last line is left out.

        Raises:
            ValueError: a line before the last one is no JSON object, so that something else wrote into the file.
        """
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")
        if not _is_whole(lines[-1]):
            lines.pop()
        records = []
        for number, line in enumerate(lines, start=1):
            if not _is_whole(line):
                raise ValueError(f"{self.path}: line {number} is no JSON object")
            records.append(json.loads(line))
        return records

    def _mend(self, descriptor: int) -> bool:
        """Cuts a torn last line off; true when the last line is whole and only its newline is missing."""
        end = os.fstat(descriptor).st_size
        tail = b""
        while len(tail) < end and b"\n" not in tail:
            start = max(0, end - len(tail) - _TAIL_BYTES)
            tail = os.pread(descriptor, end - len(tail) - start, start) + tail
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return False
        if _is_whole(torn):
            return True
        os.ftruncate(descriptor, end - len(torn))
        return False
