"""Which rows of a shard's chunks lie in a memory of fixed size, so that only the others must still be brought there.

```
draw ──▶ plan ──▶ missing   the rows to bring, as a draw of one long window: it is read like any other
                  places    where they go
                  wanted    where each row of the drawn windows lies once they are there
```

Numbers alone: the memory itself, on a GPU say, is somebody else's.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from replay_service.parcel import Draw


class Plan(NamedTuple):
    """How the rows of a draw come together.

    Attributes:
        missing: one window of the n rows that are not there, each once; n may be 0.
        places: int64 (n,), where they go.
        wanted: int64 (B, L), where the draw's rows lie then.
    """

    missing: Draw
    places: NDArray[np.int64]
    wanted: NDArray[np.int64]


class Residence:
    """The rows of one shard, each brought when it is first drawn. The oldest chunks, which leave the replay first, make
    room for new ones; one that is drawn after all is brought again.

    Args:
        first: the first place that is this shard's.
        size: how many places it has; no draw may have more rows.
    """

    def __init__(self, first: int, size: int) -> None:
        self._all = np.arange(first + size, first, -1, dtype=np.int64) - 1
        self._edition = ""
        self.clear()

    def clear(self) -> None:
        """Nothing is there any more."""
        self._free = self._all.copy()  # of which the first `_free_count` are free
        self._free_count = len(self._free)
        self._places: dict[int, NDArray[np.int64]] = {}  # by sequence: of each of its rows, -1 where it is not there
        self._oldest: list[int] = []  # a heap of these sequences

    @property
    def rows(self) -> int:
        """How many are there."""
        return len(self._free) - self._free_count

    def plan(self, draw: Draw) -> Plan:
        """What to bring for a draw, and where everything lies then. Nothing counts as there before `keep`.

        Rows of other draws may have to make room: bring and use what is planned in the order of the plans.

        Raises:
            ValueError: the draw has more rows than there are places.
        """
        if draw.batch_size * draw.length > len(self._all):
            raise ValueError(f"{draw.batch_size} windows of {draw.length} rows do not fit in {len(self._all)} places")
        if draw.edition != self._edition:
            self.clear()
            self._edition = draw.edition
        rows = draw.layouts[:, 1]
        bases = np.cumsum(rows) - rows  # all rows of the draw's chunks are numbered in a row
        lying = np.concatenate([self._lying(*chunk) for chunk in zip(draw.sequences, rows.tolist(), strict=True)])
        asked = _asked(draw, bases)
        absent = np.unique(asked[lying[asked] < 0])
        if not self._make_room(len(absent), set(draw.sequences)):
            self.clear()  # what is not asked for of its chunks leaves no room for what is
            return self.plan(draw)
        places = self._free[self._free_count - len(absent) : self._free_count].copy()
        lying[absent] = places
        return Plan(_one_window(draw, bases, absent), places, lying[asked].reshape(draw.batch_size, draw.length))

    def keep(self, plan: Plan) -> None:
        """From here on the missing rows of the newest plan are there."""
        missing = plan.missing
        for _, row, chunk, start, stop in missing.pieces.tolist():
            sequence = missing.sequences[chunk]
            if sequence not in self._places:
                self._places[sequence] = self._lying(sequence, int(missing.layouts[chunk, 1]))
                heapq.heappush(self._oldest, sequence)
            self._places[sequence][start:stop] = plan.places[row : row + stop - start]
        self._free_count -= len(plan.places)

    def _lying(self, sequence: int, rows: int) -> NDArray[np.int64]:
        """Where each row of a chunk lies."""
        found = self._places.get(sequence)
        return np.full(rows, -1, np.int64) if found is None else found

    def _make_room(self, count: int, wanted: set[int]) -> bool:
        """Gives up the oldest chunks, but none that is wanted, until so many places are free; whether they are."""
        spared: list[int] = []
        while self._free_count < count and self._oldest:
            sequence = heapq.heappop(self._oldest)
            if sequence in wanted:
                spared.append(sequence)
                continue
            places = self._places.pop(sequence)
            places = places[places >= 0]
            self._free[self._free_count : self._free_count + len(places)] = places
            self._free_count += len(places)
        for sequence in spared:
            heapq.heappush(self._oldest, sequence)
        return self._free_count >= count


def _asked(draw: Draw, bases: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each row of the windows (B · L,) its number among all rows of the draw's chunks."""
    window, row, chunk, start, stop = draw.pieces.T
    lengths = stop - start
    steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    asked = np.empty(draw.batch_size * draw.length, np.int64)
    asked[np.repeat(window * draw.length + row, lengths) + steps] = np.repeat(bases[chunk] + start, lengths) + steps
    return asked


def _one_window(draw: Draw, bases: NDArray[np.int64], rows: NDArray[np.int64]) -> Draw:
    """A draw of these rows, ascending numbers as in `_asked`, as one window; of the chunks only those they are in."""
    chunk = np.searchsorted(bases, rows, side="right") - 1
    row = np.flatnonzero((np.diff(rows, prepend=-2) != 1) | (np.diff(chunk, prepend=-1) != 0))  # where a piece begins
    lengths = np.diff(row, append=len(rows))
    start = (rows - bases[chunk])[row]
    chunks, numbers = np.unique(chunk[row], return_inverse=True)
    pieces = np.stack([np.zeros_like(row), row, numbers, start, start + lengths], axis=1)
    sequences = [draw.sequences[number] for number in chunks.tolist()]
    return Draw(1, len(rows), pieces, sequences, draw.layouts[chunks], draw.edition)
