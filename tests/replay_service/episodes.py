"""Episodes whose every row says which it is, in its pixels and in its reward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.sequence import Chunk, ChunkKey, Rows, StreamKey

ACTION_SIZE = 3
REPEAT = 2
STREAM = StreamKey(0, 0, 0)


def make_rows(stream: StreamKey, episode: int, first: int, count: int, action_size: int = ACTION_SIZE) -> Rows:
    """Rows `first` and following of an episode; the same arguments give the same bytes."""
    numbers = np.arange(first, first + count)
    noise = np.random.default_rng([*stream, episode]).integers(0, 256, (64, 64, 3), np.uint8)
    image = noise + numbers.astype(np.uint8)[:, None, None, None]
    image[:, 0, 0, 0], image[:, 0, 0, 1] = numbers // 256, numbers % 256
    return Rows(
        image=image,
        action=np.random.default_rng([*stream, episode, first]).uniform(-1, 1, (count, action_size)).astype(np.float32),
        reward=(1000 * episode + numbers).astype(np.float32),
        discount=np.ones(count, np.float32),
        is_first=numbers == 0,
    )


def make_episode(
    episode: int, sizes: Sequence[int], stream: StreamKey = STREAM, *, ends: bool = True, action_size: int = ACTION_SIZE
) -> list[Chunk]:
    """An episode cut into chunks of these sizes."""
    starts = np.cumsum([0, *sizes]).tolist()
    return [
        Chunk(
            ChunkKey(*stream, episode, index),
            make_rows(stream, episode, starts[index], size, action_size),
            is_last=ends and index == len(sizes) - 1,
        )
        for index, size in enumerate(sizes)
    ]


def assert_same(left: Rows, right: Rows) -> None:
    """Bit for bit, types included."""
    for name in ("image", "action", "reward", "discount", "is_first"):
        a, b = getattr(left, name), getattr(right, name)
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes(), name
