"""The chunks that a window index holds, and its windows by the plainest reading of their keys."""

from __future__ import annotations

import numpy as np

from common.sequence import ChunkKey
from replay_service.windows import WindowIndex

LENGTH = 4
Row = tuple[int, int]  # sequence number of a chunk, row in it
Window = tuple[Row, ...]


class Held(dict[int, tuple[ChunkKey, int, bool]]):
    """Key, rows and is_last of each chunk held, by sequence number; numbers are never used again."""

    inserted = 0


def insert_episode(index: WindowIndex, held: Held, episode: int, sizes: list[int], *, actor: int = 0) -> None:
    for number, size in enumerate(sizes):
        insert(index, held, ChunkKey(actor, 0, 0, episode, number), size, number == len(sizes) - 1)


def insert(index: WindowIndex, held: Held, key: ChunkKey, rows: int, is_last: bool) -> None:
    index.append(held.inserted, key, rows, is_last)
    held[held.inserted] = (key, rows, is_last)
    held.inserted += 1


def evict(index: WindowIndex, held: Held) -> None:
    index.evict()
    del held[min(held)]


def unequal_episodes(index: WindowIndex) -> Held:
    held = Held()
    insert_episode(index, held, 0, [3, 5, 1])  # nine rows over two borders
    insert_episode(index, held, 1, [4])  # one window
    insert_episode(index, held, 2, [2, 1])  # too short
    insert_episode(index, held, 3, [1, 1, 1, 1, 1, 1])
    insert_episode(index, held, 4, [12, 9])
    return held


def fragments(held: Held) -> list[list[Row]]:
    """Every unbroken run of rows."""
    runs: dict[ChunkKey, list[Row]] = {}
    for sequence, (key, rows, _) in held.items():
        before = key._replace(index=key.index - 1)
        run = runs.pop(before, [])
        runs[key] = run + [(sequence, row) for row in range(rows)]
    return list(runs.values())


def all_windows(held: Held) -> list[Window]:
    """Every window, in the order of the chunks in which they start and of the rows there."""
    return sorted(tuple(run[i : i + LENGTH]) for run in fragments(held) for i in range(len(run) - LENGTH + 1))


def drawn(index: WindowIndex, count: int, seed: int = 0) -> list[Window]:
    return drawn_by(index, count, np.random.default_rng(seed))


def drawn_by(index: WindowIndex, count: int, rng: np.random.Generator) -> list[Window]:
    windows: list[list[Row]] = [[] for _ in range(count)]
    for window, row, sequence, start, stop in index.draw(count, rng).tolist():
        assert row == len(windows[window])
        assert start < stop
        windows[window] += [(sequence, row) for row in range(start, stop)]
    assert all(len(window) == LENGTH for window in windows)
    return [tuple(window) for window in windows]
