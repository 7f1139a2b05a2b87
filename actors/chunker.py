"""Cuts one environment's rows into chunks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.sequence import Chunk, ChunkKey, Rows, StreamKey


class Chunker:
    """Collects the rows of one environment's current episode and hands out each chunk as soon as it is full.

    A chunk has `chunk_rows` rows; an episode's first one has the reset row besides, so that 1000 steps are whole
    chunks. The environment's very first chunk has `first_rows` (and the reset row), so that environments in step need
    not send in step. A chunk's arrays are never written again.

    Args:
        stream: which environment.
        chunk_rows: rows of a full chunk, at least 1.
        first_rows: rows of the very first chunk, in [1, chunk_rows].
        action_size: A.
    """

    def __init__(self, stream: StreamKey, chunk_rows: int, first_rows: int, action_size: int) -> None:
        if not 1 <= first_rows <= chunk_rows:
            raise ValueError(f"first_rows must be in [1, {chunk_rows}], not {first_rows}")
        self._stream = stream
        self._chunk_rows = chunk_rows
        self._next_rows = first_rows
        self._action_size = action_size
        self._episode = -1
        self._index = 0
        self._rows = Rows.empty((0,), action_size)
        self._count = 0

    @property
    def held_rows(self) -> int:
        """Rows not handed out yet, reset rows left out: those that are environment steps."""
        return self._count - int(self._rows.is_first[: self._count].sum())

    def reset(self, image: NDArray[np.uint8]) -> None:
        """Begins the next episode with its reset row; rows that an unfinished one still holds are dropped."""
        self._episode += 1
        self._index = 0
        self._open(self._next_rows + 1)
        self._write(image, np.zeros(self._action_size, np.float32), 0.0, 1.0, True)

    def step(
        self, image: NDArray[np.uint8], action: NDArray[np.float32], reward: float, discount: float, is_last: bool
    ) -> Chunk | None:
        """Adds the row that `action` led to; the chunk that it filled or ended, if any.

        Args:
            image: uint8 (64, 64, 3).
            action: float32 (A,).
            reward: received on arriving.
            discount: 0 only on a true termination.
            is_last: whether the episode ends here.
        """
        self._write(image, action, reward, discount, False)
        if not is_last and self._count < len(self._rows):
            return None
        chunk = Chunk(ChunkKey(*self._stream, self._episode, self._index), self._rows[: self._count], is_last)
        self._next_rows = self._chunk_rows
        self._index += 1
        self._open(self._chunk_rows)
        return chunk

    def cut(self) -> Chunk | None:
        """Hands out what is held although the chunk is not full, if anything; the episode goes on in the next chunk."""
        if self.held_rows == 0:
            return None
        chunk = Chunk(ChunkKey(*self._stream, self._episode, self._index), self._rows[: self._count], False)
        self._index += 1
        self._open(self._chunk_rows)
        return chunk

    def _open(self, rows: int) -> None:
        self._rows = Rows.empty((rows,), self._action_size)
        self._count = 0

    def _write(
        self, image: NDArray[np.uint8], action: NDArray[np.float32], reward: float, discount: float, is_first: bool
    ) -> None:
        row = self._count
        self._rows.image[row] = image
        self._rows.action[row] = action
        self._rows.reward[row] = reward
        self._rows.discount[row] = discount
        self._rows.is_first[row] = is_first
        self._count += 1
