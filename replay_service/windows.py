"""Which windows of L rows there are in the chunks held, and what a drawn one consists of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.sequence import ChunkKey, StreamKey
from replay_service.fragments import Fragment
from replay_service.ring import Ring
from replay_service.samplers import Sampler
from replay_service.samplers.sampler import Starts


class WindowIndex:
    """The windows of `length` rows in the chunks held; chunks come and go in the order of their sequence numbers.

    Adding, removing and drawing cost O(log chunks).

    Args:
        length: L, rows a window.
        sampler: draws; told of every window that comes or goes.
    """

    def __init__(self, length: int, sampler: Sampler) -> None:
        self._length = length
        self._sampler = sampler
        self._rows = Ring()  # of each chunk held, by sequence number
        self._following = Ring()  # the next chunk of its fragment; 0 where there is none
        self._fragments: dict[int, Fragment] = {}  # by their first chunk held
        self._open: dict[StreamKey, Fragment] = {}
        self._chunks = 0
        self.rows = 0
        self.windows = 0
        self.episodes = 0
        self.short_fragments = 0

    def __len__(self) -> int:
        """Chunks held."""
        return self._chunks

    @property
    def drawable_windows(self) -> int:
        """Windows that `draw` can return: all of them, or those of finished episodes."""
        return self._sampler.windows

    def append(self, sequence: int, key: ChunkKey, rows: int, is_last: bool) -> None:
        """Adds the newest chunk. It joins its episode when it is the very next chunk of it, else it begins a fragment.

        Args:
            sequence: above every sequence number before.
            key: the chunk's name.
            rows: its rows T.
            is_last: whether the episode ended with it.
        """
        fragment = self._fragment_for(key)
        if fragment:
            self._following[fragment.last] = sequence
        else:
            self._fragments[sequence] = fragment
        self._rows[sequence] = rows
        self._following[sequence] = 0
        fragment.following = (key.episode, key.index + 1)
        self._chunks += 1
        self.rows += rows
        self.windows -= fragment.windows
        for number, starts in fragment.append(sequence, rows):
            self._sampler.counted(number, starts)
        self.windows += fragment.windows
        if is_last:
            self._finish(fragment)

    def evict(self) -> None:
        """Removes the oldest chunk, and with it the windows that start in it."""
        sequence = self._rows.first
        while not self._rows[sequence]:  # a number that was never given
            sequence += 1
        fragment = self._fragments.pop(sequence)
        self._chunks -= 1
        self.rows -= self._rows[sequence]
        self._rows.forget_before(sequence + 1)
        self._following.forget_before(sequence + 1)
        was_short = fragment.finished and not fragment.windows
        self.windows -= fragment.windows
        fragment.pop_first()
        self.windows += fragment.windows
        self._sampler.evicted(sequence)
        if fragment.finished:
            self.short_fragments += bool(fragment and not fragment.windows) - was_short
            self._sampler.finished(fragment)
        if fragment:
            self._fragments[fragment.first] = fragment
            return
        self.episodes -= 1
        if not fragment.finished:
            del self._open[fragment.stream]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draws `count` windows independently, with replacement; `drawable_windows` must not be 0.

        Returns:
            the pieces of chunks that they consist of, int64 (n, 5), window by window: (window, row, sequence, start,
            stop) says that rows `start` to `stop` of chunk `sequence` are rows `row` and following of a window.
        """
        return self._pieces(self._sampler.draw(count, rng))

    def _pieces(self, starts: Starts) -> NDArray[np.int64]:
        """Follows every window from chunk to chunk, all of them in step until each has its rows."""
        sequence, start = starts
        sequences, sizes = [sequence], [self._rows.take(sequence)]
        reached = sizes[0] - start
        while reached.min() < self._length:
            sequences.append(self._following.take(sequences[-1]))
            sizes.append(self._rows.take(sequences[-1]))
            reached = reached + sizes[-1]
        chunk, size = np.stack(sequences, 1), np.stack(sizes, 1)  # (count, most pieces of a window)
        first = size.cumsum(1) - size - start[:, None]  # of each chunk, counted from the window's first row
        row = np.maximum(first, 0)
        stop = np.minimum(first + size, self._length)
        window, piece = np.nonzero(row < self._length)  # the others lie beyond the window's end
        row, first, stop, chunk = (column[window, piece] for column in (row, first, stop, chunk))
        return np.stack([window, row, chunk, row - first, stop - first], 1)

    def _fragment_for(self, key: ChunkKey) -> Fragment:
        fragment = self._open.get(key.stream)
        if fragment and fragment.following == (key.episode, key.index):
            return fragment
        if fragment:
            self._finish(fragment)
        for other in [f for s, f in self._open.items() if s.actor == key.actor and s.incarnation < key.incarnation]:
            self._finish(other)  # that life of the actor is over: its episodes end where they are
        self.episodes += 1
        self._open[key.stream] = Fragment(key.stream, (key.episode, key.index), self._length)
        return self._open[key.stream]

    def _finish(self, fragment: Fragment) -> None:
        fragment.finished = True
        del self._open[fragment.stream]
        self.short_fragments += not fragment.windows
        self._sampler.finished(fragment)
