"""Where Prometheus finds the runs that go on: gathered from their folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.durable import replace_durably

NAME = "metrics_target.json"
DEPTH = 3


def find(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The targets of the runs in folders, which are run folders or hold some, at most three levels down."""
    found = {path.resolve() for folder in folders for path in _files(folder)}
    return [target for path in sorted(found) for target in _read(path)]


def update(path: Path, targets: list[dict[str, Any]]) -> bool:
    """Writes a file for Prometheus' file service discovery unless it says just this already; whether it did."""
    content = (json.dumps(targets, indent=2) + "\n").encode()
    if path.exists() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(path, content)
    return True


def _files(folder: Path) -> Iterator[Path]:
    for depth in range(DEPTH + 1):
        yield from folder.glob("*/" * depth + NAME)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        targets = json.loads(path.read_bytes())
    except (OSError, ValueError):  # the run has just ended
        return []
    return [target for target in targets if isinstance(target, dict)] if isinstance(targets, list) else []
