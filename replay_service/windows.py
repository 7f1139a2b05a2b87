"""Which windows of L rows can be drawn, and drawing them: every window alike, or every finished episode alike.

A fragment is an unbroken run of one episode's chunks. A window is L consecutive rows of one fragment, across chunk
borders; it is counted at the chunk in which it starts, so that evicting the oldest chunk removes exactly the windows
that start in it. The counts lie in a sum tree: append, evict and draw cost O(log chunks).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from common.sequence import ChunkKey, StreamKey
from replay_service.sum_tree import SumTree

Sampling = Literal["uniform_step", "uniform_episode"]


class Piece(NamedTuple):
    """Rows `start` to `stop` of chunk `sequence`: they are rows `row` and following of window `window`."""

    window: int
    row: int
    sequence: int
    start: int
    stop: int


@dataclass(eq=False)
class _Fragment:
    """An unbroken run of one episode's chunks.

    Attributes:
        stream: who wrote it.
        sequences: its chunks that are still held, ascending.
        ends: for each of them, the rows of the fragment up to its end, counted from the fragment's very first row.
        evicted: rows that are no longer held.
        following: the chunk (episode, index) that would continue it.
        finished: no chunk can follow.
    """

    stream: StreamKey
    following: tuple[int, int]
    sequences: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    evicted: int = 0
    finished: bool = False

    @property
    def rows(self) -> int:
        return self.ends[-1] - self.evicted

    def first_row(self, position: int) -> int:
        return self.ends[position - 1] if position else self.evicted


class WindowIndex:
    """The windows of `length` rows in the chunks held; chunks come and go in the order of their sequence numbers.

    Args:
        length: L, rows a window.
        sampling: "uniform_step": every window alike. "uniform_episode": a finished fragment that has a window is drawn
            first, all of them alike, then one of its windows.
    """

    def __init__(self, length: int, sampling: Sampling = "uniform_step") -> None:
        self._length = length
        self._sampling = sampling
        self._fragments: OrderedDict[int, _Fragment] = OrderedDict()  # by sequence number of each chunk held
        self._open: dict[StreamKey, _Fragment] = {}
        self._starts = SumTree()  # by sequence: windows that start in the chunk
        self._drawable: list[_Fragment] = []  # finished and with a window, in no order
        self._place: dict[_Fragment, int] = {}  # of each of those in that list
        self._finished_windows = 0
        self.rows = 0
        self.episodes = 0
        self.short_fragments = 0

    def __len__(self) -> int:
        """Chunks held."""
        return len(self._fragments)

    @property
    def windows(self) -> int:
        """Windows held, whether or not their episode has finished."""
        return self._starts.total

    @property
    def drawable_windows(self) -> int:
        """Windows that `draw` can return: all of them, or those of finished episodes."""
        return self._starts.total if self._sampling == "uniform_step" else self._finished_windows

    def append(self, sequence: int, key: ChunkKey, rows: int, is_last: bool) -> None:
        """Adds the newest chunk. It joins its episode when it is the very next chunk of it, else it begins a fragment.

        Args:
            sequence: above every sequence number before.
            key: the chunk's name.
            rows: its rows T.
            is_last: whether the episode ended with it.
        """
        fragment = self._fragment_for(key)
        self._fragments[sequence] = fragment
        fragment.ends.append(rows + (fragment.ends[-1] if fragment.ends else 0))
        fragment.sequences.append(sequence)
        fragment.following = (key.episode, key.index + 1)
        self.rows += rows
        self._count_new_starts(fragment)
        if is_last:
            self._finish(fragment)

    def evict(self) -> None:
        """Removes the oldest chunk, and with it the windows that start in it."""
        sequence, fragment = self._fragments.popitem(last=False)
        if fragment.finished:
            self._count_finished(fragment, -1)
        self.rows -= fragment.ends[0] - fragment.evicted
        self._starts[sequence] = 0
        self._starts.forget_before(sequence + 1)
        if len(fragment.sequences) > 1:
            fragment.evicted = fragment.ends.pop(0)
            del fragment.sequences[0]
            if fragment.finished:
                self._count_finished(fragment, 1)
            return
        self.episodes -= 1
        if not fragment.finished:
            del self._open[fragment.stream]

    def draw(self, count: int, rng: np.random.Generator) -> list[Piece]:
        """Draws `count` windows independently, with replacement, as the pieces of chunks they consist of.

        `drawable_windows` must not be 0.
        """
        if self._sampling == "uniform_step":
            sequences, rows = self._starts.find(rng.integers(self._starts.total, size=count))
            starts = [
                (fragment := self._fragments[sequence], bisect_left(fragment.sequences, sequence), row)
                for sequence, row in zip(sequences.tolist(), rows.tolist(), strict=True)
            ]
        else:
            starts = [self._window_of(self._drawable[i], rng) for i in rng.integers(len(self._drawable), size=count)]
        return [piece for window, start in enumerate(starts) for piece in self._pieces(window, *start)]

    def _window_of(self, fragment: _Fragment, rng: np.random.Generator) -> tuple[_Fragment, int, int]:
        """A uniformly drawn window of the fragment: the position of the chunk it starts in, and the row there."""
        row = fragment.evicted + int(rng.integers(self._windows_of(fragment)))
        position = bisect_right(fragment.ends, row)
        return fragment, position, row - fragment.first_row(position)

    def _pieces(self, window: int, fragment: _Fragment, position: int, start: int) -> Iterator[Piece]:
        row = 0
        while row < self._length:
            rows = fragment.ends[position] - fragment.first_row(position)
            stop = min(rows, start + self._length - row)
            yield Piece(window, row, fragment.sequences[position], start, stop)
            row += stop - start
            position, start = position + 1, 0

    def _fragment_for(self, key: ChunkKey) -> _Fragment:
        fragment = self._open.get(key.stream)
        if fragment and fragment.following == (key.episode, key.index):
            return fragment
        if fragment:
            self._finish(fragment)
        for other in [f for s, f in self._open.items() if s.actor == key.actor and s.incarnation < key.incarnation]:
            self._finish(other)  # that life of the actor is over: its episodes end where they are
        self.episodes += 1
        self._open[key.stream] = _Fragment(key.stream, (key.episode, key.index))
        return self._open[key.stream]

    def _count_new_starts(self, fragment: _Fragment) -> None:
        """A new last chunk completes windows that start in it and in the chunks just before it."""
        starts_end = fragment.ends[-1] - self._length + 1
        for position in reversed(range(len(fragment.sequences))):
            first, end, sequence = fragment.first_row(position), fragment.ends[position], fragment.sequences[position]
            starts = max(0, min(end, starts_end) - first)
            if starts == self._starts[sequence] and starts == end - first:
                return  # this chunk was full already, and so are those before it
            self._starts[sequence] = starts

    def _windows_of(self, fragment: _Fragment) -> int:
        return max(0, fragment.rows - self._length + 1)

    def _finish(self, fragment: _Fragment) -> None:
        fragment.finished = True
        del self._open[fragment.stream]
        self._count_finished(fragment, 1)

    def _count_finished(self, fragment: _Fragment, sign: int) -> None:
        """Enters a finished fragment, as it now is, into the counts and the list to draw from; sign −1 takes it out."""
        windows = self._windows_of(fragment)
        self._finished_windows += sign * windows
        if windows == 0:
            self.short_fragments += sign
        elif sign > 0:
            self._place[fragment] = len(self._drawable)
            self._drawable.append(fragment)
        else:
            place, last = self._place.pop(fragment), self._drawable.pop()
            if last is not fragment:
                self._drawable[place] = last
                self._place[last] = place
