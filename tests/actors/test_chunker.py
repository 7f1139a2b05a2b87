"""Chunks: where they are cut, how they are named, and that joining them gives the episodes back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.chunker import Chunker
from common.sequence import Chunk, ChunkKey, Rows, StreamKey

STREAM = StreamKey(3, 1, 2)


def image(value: int) -> np.ndarray:
    return np.full((64, 64, 3), value % 256, np.uint8)


def play(chunker: Chunker, steps: int, finish: bool = True, discount: float = 1.0) -> list[Chunk]:
    """An episode whose row t holds t in every field."""
    chunker.reset(image(0))
    chunks = []
    for t in range(1, steps + 1):
        last = finish and t == steps
        action = np.array([t, -t], np.float32)
        chunk = chunker.step(image(t), action, float(t), discount if last else 1.0, last)
        chunks += [chunk] if chunk is not None else []
    return chunks


def lengths(chunks: list[Chunk]) -> list[int]:
    return [len(chunk.rows) for chunk in chunks]


def test_thousand_steps_are_whole_chunks() -> None:
    chunks = play(Chunker(STREAM, 50, 50, 2), 1000)
    assert lengths(chunks) == [51] + [50] * 19
    assert [chunk.is_last for chunk in chunks] == [False] * 19 + [True]


def test_only_the_environments_very_first_chunk_has_its_own_length() -> None:
    chunker = Chunker(STREAM, 10, 3, 2)
    assert lengths(play(chunker, 25)) == [4, 10, 10, 2]
    assert lengths(play(chunker, 25)) == [11, 10, 5]


def test_row_holds_the_action_that_led_to_it() -> None:
    rows = Rows.concatenate([chunk.rows for chunk in play(Chunker(STREAM, 4, 2, 2), 9, discount=0.0)])
    assert rows.action.tolist() == [[0, 0]] + [[t, -t] for t in range(1, 10)]
    assert rows.reward.tolist() == list(range(10))
    assert rows.image[:, 0, 0, 0].tolist() == list(range(10))
    assert rows.discount.tolist() == [1.0] * 9 + [0.0]
    assert rows.is_first.tolist() == [True] + [False] * 9


def test_chunks_are_named_by_stream_episode_and_index() -> None:
    chunker = Chunker(STREAM, 4, 4, 2)
    keys = [chunk.key for _ in range(2) for chunk in play(chunker, 9)]
    assert keys == [ChunkKey(3, 1, 2, episode, index) for episode in (0, 1) for index in (0, 1, 2)]


def test_unfinished_episode_ends_at_its_last_sent_row() -> None:
    chunker = Chunker(STREAM, 4, 4, 2)
    sent = play(chunker, 6, finish=False)
    assert lengths(sent) == [5]
    assert not sent[0].is_last
    assert chunker.held_rows == 2
    assert [chunk.key.episode for chunk in play(chunker, 4)] == [1]
    assert chunker.held_rows == 0


def test_reset_row_is_not_held_as_an_environment_step() -> None:
    chunker = Chunker(STREAM, 4, 4, 2)
    assert chunker.held_rows == 0
    chunker.reset(image(0))
    assert chunker.held_rows == 0
    chunker.step(image(1), np.zeros(2, np.float32), 0.0, 1.0, False)
    assert chunker.held_rows == 1


def test_sent_chunks_are_never_written_again() -> None:
    chunker = Chunker(STREAM, 3, 1, 2)
    sent = play(chunker, 7)
    before = [chunk.rows.image.copy() for chunk in sent]
    play(chunker, 40)
    assert all(np.array_equal(chunk.rows.image, copy) for chunk, copy in zip(sent, before, strict=True))


def test_inputs_are_copied() -> None:
    chunker = Chunker(STREAM, 1, 1, 2)
    shared, action = image(1), np.ones(2, np.float32)
    chunker.reset(shared)
    chunk = chunker.step(shared, action, 0.0, 1.0, False)
    shared[:], action[:] = 9, 9
    assert chunk is not None
    assert chunk.rows.image.max() == 1
    assert chunk.rows.action.max() == 1


@pytest.mark.parametrize("first_rows", [0, 5])
def test_first_length_outside_the_chunk_is_refused(first_rows: int) -> None:
    with pytest.raises(ValueError, match=r"first_rows must be in \[1, 4\]"):
        Chunker(STREAM, 4, first_rows, 2)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), chunk_rows=st.integers(1, 8))
def test_joined_chunks_are_the_episodes(data: st.DataObject, chunk_rows: int) -> None:
    first_rows = data.draw(st.integers(1, chunk_rows))
    episodes = data.draw(st.lists(st.tuples(st.integers(1, 20), st.booleans()), min_size=1, max_size=5))
    chunker = Chunker(STREAM, chunk_rows, first_rows, 2)
    sent_before = 0
    for number, (steps, finish) in enumerate(episodes):
        chunks = play(chunker, steps, finish)
        rows = sum(len(chunk.rows) for chunk in chunks)
        held = chunker.held_rows + (0 if chunks else 1)
        assert rows + held == steps + 1
        assert not (finish and chunker.held_rows)
        assert [chunk.key for chunk in chunks] == [ChunkKey(*STREAM, number, i) for i in range(len(chunks))]
        assert [chunk.is_last for chunk in chunks] == [finish and i == len(chunks) - 1 for i in range(len(chunks))]
        for chunk in chunks:
            assert 1 <= len(chunk.rows) <= chunk_rows + (chunk.key.index == 0)
        for chunk in chunks[:-1] if finish else chunks:
            full = first_rows if sent_before == 0 and chunk.key.index == 0 else chunk_rows
            assert len(chunk.rows) == full + (chunk.key.index == 0)
        if chunks:
            assert Rows.concatenate([chunk.rows for chunk in chunks]).reward.tolist() == list(range(rows))
        sent_before += len(chunks)
