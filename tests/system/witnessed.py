"""The suite's own task, whose collectors write down what the replay acknowledged to them, outside of any store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cluster.runtimes.ray_sink import RaySink
from common.sequence import ROW_FIELDS, Chunk, ChunkKey, Rows
from tests.system.faulty import Faulty

LEDGER = "TINY_LEDGER"
"""Names the file: one line a chunk, its key and a digest of its rows."""


def make(seed: int) -> Faulty:
    """The environment; the collector that makes it gets a witness."""
    if LEDGER in os.environ and not _pending:
        _watch()
    return Faulty(seed)


_pending: list[list[str]] = []
"""Lines of the chunks that were sent and not acknowledged yet, once this process is watched."""


def _watch() -> None:
    insert, flush = RaySink.insert, RaySink.flush
    lines: list[str] = []
    _pending.append(lines)

    def witnessed_insert(sink: RaySink, chunk: Chunk) -> None:
        insert(sink, chunk)
        lines.append(f"{' '.join(map(str, chunk.key))} {digest(chunk.rows)}\n")

    def witnessed_flush(sink: RaySink) -> int:
        stored = flush(sink)
        with open(os.environ[LEDGER], "ab", buffering=0) as ledger:
            ledger.write("".join(lines).encode())
        lines.clear()
        return stored

    RaySink.insert, RaySink.flush = witnessed_insert, witnessed_flush  # type: ignore[method-assign]


def digest(rows: Rows) -> str:
    """Of every byte of the rows."""
    return hashlib.sha256(b"".join(getattr(rows, name).tobytes() for name in ROW_FIELDS)).hexdigest()


def acknowledged(ledger: Path) -> dict[ChunkKey, str]:
    """The digests of the chunks that were acknowledged; a line that a kill tore is none."""
    lines = ledger.read_text().split("\n")[:-1] if ledger.exists() else []
    parts = [line.split(" ") for line in lines]
    return {ChunkKey(*map(int, numbers)): value for *numbers, value in parts if len(value) == 64}
