"""The sequence types that every room exchanges: rows, chunks, and their keys.

An image goes env → collector → chunk → store → batch → learner; these are the shapes it takes on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGE_SHAPE = (64, 64, 3)
ROW_FIELDS = ("image", "action", "reward", "discount", "is_first")


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of one episode, leading shape (T,), or a batch of windows, leading shape (B, L).

    Attributes:
        image: uint8 (..., 64, 64, 3).
        action: float32 (..., A), the action that led to the row; zeros on an episode's first row.
        reward: float32 (...), summed over the action repeat, received on arriving at the row.
        discount: float32 (...), 0 only on a true termination.
        is_first: bool (...), true only on an episode's reset row.
    """

    image: NDArray[np.uint8]
    action: NDArray[np.float32]
    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    is_first: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.reward)

    def __getitem__(self, index: slice) -> Rows:
        return Rows(*(getattr(self, name)[index] for name in ROW_FIELDS))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in ROW_FIELDS)

    def env_steps(self, action_repeat: int) -> int:
        """Environment steps in these rows: action repeat × rows that are no reset row."""
        return action_repeat * int(self.is_first.size - np.count_nonzero(self.is_first))

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Joins parts along the first axis, copying."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ROW_FIELDS))

    @classmethod
    def empty(cls, leading: tuple[int, ...], action_size: int) -> Rows:
        """Unwritten memory of the given leading shape, to be filled in place."""
        return cls(
            image=np.empty((*leading, *IMAGE_SHAPE), np.uint8),
            action=np.empty((*leading, action_size), np.float32),
            reward=np.empty(leading, np.float32),
            discount=np.empty(leading, np.float32),
            is_first=np.empty(leading, np.bool_),
        )


class StreamKey(NamedTuple):
    """One environment in one life of one actor: rows with this key arrive in order."""

    actor: int
    incarnation: int
    environment: int


class ChunkKey(NamedTuple):
    """Names a chunk for ever: inserting the same key again changes nothing."""

    actor: int
    incarnation: int
    environment: int
    episode: int
    index: int  # type: ignore[assignment]  # the key is named before tuple.index, which nobody calls on it

    @property
    def stream(self) -> StreamKey:
        """The stream this chunk belongs to."""
        return StreamKey(self.actor, self.incarnation, self.environment)


@dataclass(frozen=True)
class Chunk:
    """A piece of one episode, cut where it became full.

    Attributes:
        key: its name.
        rows: leading shape (T,), T ≥ 1.
        is_last: whether the episode ended with this chunk.
    """

    key: ChunkKey
    rows: Rows
    is_last: bool
