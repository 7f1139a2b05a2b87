"""A dataset's folder as a source of chunks, in the order in which they were inserted."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError
from common.sequence import Chunk, Rows
from replay_service.codec import CodecError
from replay_service.datasets import files, manifest
from replay_service.datasets.manifest import EpisodeFile
from replay_service.source import Facts
from replay_service.stock import Stock, Stored


class _Place(NamedTuple):
    """Where a chunk's rows lie."""

    file: EpisodeFile
    start: int
    stop: int


class Dataset:
    """Implements `replay_service.source.Source`; a file is held against its checksum before its first chunk is read.

    Args:
        folder: with a `dataset.json`.

    Raises:
        UserError: it is no dataset, or its manifest contradicts itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = manifest.load(folder)
        self._places: dict[int, _Place] = {}
        self._good: set[str] = set()
        chunks: list[Stored] = []
        for file in self.manifest.files:
            start = 0
            for stored in file.stored():
                self._places[stored.sequence] = _Place(file, start, start + stored.rows)
                chunks.append(stored)
                start += stored.rows
        self.chunks = sorted(chunks, key=lambda stored: stored.sequence)

    @property
    def facts(self) -> Facts:
        """See `Source.facts`."""
        return self.manifest.facts

    def check(self) -> None:
        """Reads every file.

        Raises:
            UserError: one is damaged, or not as it must be.
        """
        for file in self.manifest.files:
            try:
                self._check(file)
            except CodecError as error:
                raise UserError(f"{self.folder}: {error}") from error

    def stocks(self) -> list[Stock]:
        """See `Source.stocks`: one shard, which has lost nothing."""
        marks = {stored.key.stream: (stored.key.episode, stored.key.index) for stored in self.chunks}
        env_steps = self.manifest.counts.env_steps
        size = sum(path.stat().st_size for path in self.folder.iterdir())
        return [Stock(self.chunks, marks, marks, env_steps, env_steps, size)]

    def chunk(self, stored: Stored) -> Chunk:
        """See `Source.chunk`."""
        file, start, stop = self._places[stored.sequence]
        self._check(file)
        return Chunk(stored.key, Rows(*files.read(self.folder / file.file, start, stop)), stored.is_last)

    def rewards(self, stored: Stored) -> NDArray[np.float32]:
        """See `Source.rewards`."""
        file, start, stop = self._places[stored.sequence]
        self._check(file)
        (rewards,) = files.read(self.folder / file.file, start, stop, ["reward"])
        return rewards

    def close(self) -> None:
        """Nothing is kept open."""

    def _check(self, file: EpisodeFile) -> None:
        if file.file not in self._good:
            files.check(self.folder, file, self.manifest.action_size)
            self._good.add(file.file)
