"""A replay shard as the other roles see it over Ray."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import ray
from numpy.typing import NDArray

from cluster.runtimes.roles import Setting, build_replay
from common.errors import NoWindowsError
from replay_service.parcel import Draw, Parcel
from replay_service.stores.lmdb import shard_folder


class Place(NamedTuple):
    """Where a shard's file lies: the same place is the same file.

    Attributes:
        node: Ray's name for the host.
        folder: the shard's folder on it.
        file: the data file's number there; a file that was made anew has another.
    """

    node: str
    folder: str
    file: int


class Sample(NamedTuple):
    """A shard's part of a batch.

    Attributes:
        part: the rows, or, where they are to be read from its file, which they are; None while nothing can be drawn.
        windows: how many windows the shard holds now.
        place: of the file that a draw is of.
    """

    part: Parcel | Draw | None
    windows: int
    place: Place | None = None


class ReplayShard:
    """A replay shard whose answers say how many windows it holds, so that the next batch is split rightly."""

    def __init__(self, setting: Setting, shard: int) -> None:
        self.replay = build_replay(setting, shard)
        self.report = self.replay.report
        self.prioritise = self.replay.prioritise
        self.random_state = self.replay.random_state
        self.set_random_state = self.replay.set_random_state
        self.place = _place(setting, shard)
        self.reading = ExitStack()

    def windows(self) -> int:
        """Windows that can be drawn now."""
        return self.replay.windows

    def where(self) -> Place | None:
        """Where the shard's file lies; None if its store has none."""
        return self.place

    def insert(self, chunks: list[NDArray[np.uint8]]) -> int:
        """Stores encoded chunks; environment steps newly stored."""
        self.reading.close()  # or the store could not use again what is evicted now
        return self.replay.insert(*chunks)

    def draw(self, count: int) -> Sample:
        """Which rows a part of a batch consists of, for who reads the shard's file itself."""
        try:
            return Sample(self.replay.draw(count), self.replay.windows, self.place)
        except NoWindowsError:
            return Sample(None, 0)

    def read(self, draw: Draw) -> Parcel:
        """Rows of a draw, still in the store: Ray copies them from there; raises as `Replay.read` does."""
        self.reading.close()
        return self.reading.enter_context(self.replay.read(draw))

    def sample(self, count: int) -> Sample:
        """A part of a batch, still in the store: Ray copies it from there, before the next call begins."""
        self.reading.close()
        try:
            parcel = self.reading.enter_context(self.replay.drawn(count))
        except NoWindowsError:
            return Sample(None, 0)  # it came back empty
        return Sample(parcel, self.replay.windows)


def _place(setting: Setting, shard: int) -> Place | None:
    if setting.config.replay_store != "lmdb":
        return None
    folder = shard_folder(setting.replay_folder, shard)
    return Place(ray.get_runtime_context().get_node_id(), str(folder), file_number(folder))


def file_number(folder: Path) -> int:
    """What tells a shard's data file from others on its host."""
    return (folder / "data.mdb").stat().st_ino
