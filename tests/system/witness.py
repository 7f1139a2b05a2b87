"""Streams of rows that say who they are, so that whatever is found anywhere can be held against what was inserted.

A stream's chunks are the same every time they are made: how many rows each has, where episodes end, every byte.
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from common.sequence import ROW_FIELDS, Chunk, ChunkKey, Rows, StreamKey

ACTION_SIZE = 2
REPEAT = 2
LARGEST_CHUNK = 20
_NAME = struct.Struct("<IIIII")


def rows_of(stream: StreamKey, episode: int, first: int, count: int) -> Rows:
    """Rows `first` and following of an episode, their names in their first pixels."""
    numbers = np.arange(first, first + count)
    image = np.full((count, 64, 64, 3), 7, np.uint8)
    noise = np.random.default_rng([*stream, episode]).integers(0, 256, (16, 64, 3), np.uint8)
    image[:, 8:24] = noise + numbers.astype(np.uint8)[:, None, None, None]
    for row, number in zip(image, numbers.tolist(), strict=True):
        row.reshape(-1)[: _NAME.size] = np.frombuffer(_NAME.pack(*stream, episode, number), np.uint8)
    return Rows(
        image=image,
        action=np.stack([numbers, -numbers], axis=1).astype(np.float32),
        reward=(1000 * episode + numbers).astype(np.float32),
        discount=np.ones(count, np.float32),
        is_first=numbers == 0,
    )


def chunks_of(stream: StreamKey) -> Iterator[Chunk]:
    """The stream's chunks, without end."""
    sizes = random.Random(repr(stream))
    for episode in itertools.count():
        row, length = 0, sizes.randint(1, 60)
        for index in itertools.count():
            count = min(sizes.randint(1, LARGEST_CHUNK), length - row)
            is_last = row + count == length
            yield Chunk(ChunkKey(*stream, episode, index), rows_of(stream, episode, row, count), is_last)
            row += count
            if is_last:
                break


def assert_window(window: Rows) -> None:
    """The rows of a window are those of one episode that follow its first one, to the last bit.

    Args:
        window: (L,) rows.
    """
    *stream, episode, first = _NAME.unpack(window.image[0].tobytes()[: _NAME.size])
    expected = rows_of(StreamKey(*stream), episode, first, len(window))
    for name in ROW_FIELDS:
        np.testing.assert_array_equal(getattr(window, name), getattr(expected, name), f"{name} of {stream} {episode}")


class Contents(NamedTuple):
    """What a store holds.

    Attributes:
        chunks: in order.
        marks: the (episode, index) of each stream's last chunk.
        inserted_env_steps: its counter.
    """

    chunks: list[Chunk]
    marks: dict[StreamKey, tuple[int, int]]
    inserted_env_steps: int


def assert_accounts(contents: Contents, acknowledged: Sequence[ChunkKey], capacity: int) -> int:
    """Holds a store's contents against what was acknowledged.

    Every stream's chunks were stored from its first one to its mark, and what is held of them is an unbroken run to
    there, each once and with the bytes it was made with. Everything acknowledged was stored. The counter is the sum of
    all that was stored. Nothing is gone without need, and nothing is kept above the capacity.

    Returns:
        environment steps that were stored.
    """
    keys = [chunk.key for chunk in contents.chunks]
    assert len(set(keys)) == len(keys), "a chunk is there twice"
    assert len(set(acknowledged)) == len(acknowledged)
    assert {key.stream for key in keys} <= contents.marks.keys()
    stored: dict[ChunkKey, int] = {}
    for stream, mark in sorted(contents.marks.items()):
        plan = list(_up_to(stream, mark))
        stored |= {chunk.key: chunk.rows.env_steps(REPEAT) for chunk in plan}
        held = [chunk for chunk in contents.chunks if chunk.key.stream == stream]
        for chunk, expected in zip(held, plan[len(plan) - len(held) :], strict=True):
            assert chunk.key == expected.key, f"{chunk.key} is there and {expected.key} is not"
            assert chunk.is_last == expected.is_last
            for name in ROW_FIELDS:
                np.testing.assert_array_equal(getattr(chunk.rows, name), getattr(expected.rows, name))
    lost = set(acknowledged) - stored.keys()
    assert not lost, f"acknowledged and lost: {lost}"
    env_steps = sum(stored.values())
    assert contents.inserted_env_steps == env_steps, f"counted {contents.inserted_env_steps}, stored {env_steps}"
    held_env_steps = sum(stored[key] for key in keys)
    largest = REPEAT * LARGEST_CHUNK
    assert min(env_steps, capacity - largest) <= held_env_steps <= capacity
    return env_steps


def _up_to(stream: StreamKey, mark: tuple[int, int]) -> Iterator[Chunk]:
    """The stream's chunks from its first to that of the mark."""
    for chunk in chunks_of(stream):
        yield chunk
        if (chunk.key.episode, chunk.key.index) == mark:
            return
        assert (chunk.key.episode, chunk.key.index) < mark, f"{stream} has no chunk {mark}"
