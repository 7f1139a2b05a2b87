"""A fragment: an unbroken run of one episode's chunks, and the windows of L rows in it."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from common.sequence import StreamKey


class Fragment:
    """An unbroken run of one episode's chunks; they join at its end and leave at its beginning.

    A window is L consecutive rows. It is counted at the chunk in which it starts, so that removing the first chunk
    removes exactly the windows that start in it.

    Args:
        stream: who wrote it.
        following: the chunk (episode, index) that comes first, and later the one that would continue it.
        length: L.

    Attributes:
        finished: no chunk can follow.
    """

    def __init__(self, stream: StreamKey, following: tuple[int, int], length: int) -> None:
        self.stream = stream
        self.following = following
        self.finished = False
        self._length = length
        self._sequences = array("q")  # its chunks that are held, ascending
        self._ends = array("q")  # of each of them, counted from the fragment's very first row
        self._gone = 0  # rows that are no longer held

    def __len__(self) -> int:
        """Chunks held."""
        return len(self._sequences)

    @property
    def first(self) -> int:
        """Sequence number of its first chunk held."""
        return self._sequences[0]

    @property
    def last(self) -> int:
        """Sequence number of its last chunk."""
        return self._sequences[-1]

    @property
    def windows(self) -> int:
        """Windows in the rows held."""
        return max(0, self._end - self._gone - self._length + 1)

    def append(self, sequence: int, rows: int) -> Iterator[tuple[int, int]]:
        """Adds a chunk. Its rows complete windows that start in it and in the chunks just before it.

        Yields:
            for the new chunk, then for each in which more windows start than before: its sequence number, and how many.
        """
        full = self._end - self._length + 1  # the windows that start before this row were there already
        self._ends.append(self._end + rows)
        self._sequences.append(sequence)
        yield sequence, self._starts_in(len(self._ends) - 1)
        for position in range(bisect_right(self._ends, full), len(self._ends) - 1):
            starts = self._starts_in(position)
            if starts == 0:
                return
            yield self._sequences[position], starts

    def pop_first(self) -> None:
        """Removes the first chunk."""
        self._gone = self._ends.pop(0)
        del self._sequences[0]

    def start(self, window: int) -> tuple[int, int]:
        """Where a window starts, counted from 0 in order: sequence number of the chunk, and the row in it."""
        row = self._gone + window
        position = bisect_right(self._ends, row)
        return self._sequences[position], row - self._first_row(position)

    @property
    def _end(self) -> int:
        return self._ends[-1] if self._ends else self._gone

    def _first_row(self, position: int) -> int:
        return self._ends[position - 1] if position else self._gone

    def _starts_in(self, position: int) -> int:
        starts_end = self._end - self._length + 1
        return max(0, min(self._ends[position], starts_end) - self._first_row(position))
