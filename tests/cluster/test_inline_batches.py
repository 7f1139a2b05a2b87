"""Batches of the inline runtime know which shard drew which of their sequences, and from where."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.runtimes.assembly import HostAssembly
from cluster.runtimes.inline_batches import InlineBatches
from cluster.runtimes.origin import Part, split_losses
from common.config import ReplayConfig
from common.errors import NoWindowsError
from common.sequence import Rows, StreamKey
from replay_service.codec import encode
from replay_service.replay import Replay
from replay_service.stores.memory import MemoryStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, make_episode

LENGTH = 5
SEQUENCES = 60
CHUNK = 10
CHUNKS = [2, 3, 5]  # of each shard's only episode, whose number is the shard's


def make_shard(number: int, chunks: int) -> Replay:
    replay = Replay(
        ReplayConfig(sampling="prioritized", priority_exponent=1.0),
        store=MemoryStore(ACTION_SIZE),
        action_size=ACTION_SIZE,
        batch_length=LENGTH,
        action_repeat=REPEAT,
        seed=number,
    )
    for chunk in make_episode(number, [CHUNK] * chunks, StreamKey(number, 0, 0)):
        replay.insert(encode(chunk))
    return replay


def make_batches(chunks: list[int]) -> InlineBatches:
    shards = [make_shard(number, count) for number, count in enumerate(chunks)]
    assembly = HostAssembly(lambda: Rows.empty((SEQUENCES, LENGTH), ACTION_SIZE))
    return InlineBatches(shards, assembly, seed=0, patience_seconds=0.0)


def test_a_batch_s_origin_says_in_its_order_where_each_sequence_starts() -> None:
    batches = make_batches(CHUNKS)
    rows = next(batches)
    told = [(part.shard, chunk) for part in batches.origin for chunk in part.starts.tolist()]
    shard, row = np.divmod(rows.reward[:, 0].astype(int), 1000)  # as `make_rows` writes them
    assert told == list(zip(shard.tolist(), (row // CHUNK).tolist(), strict=True))
    assert {part.shard for part in batches.origin} == {0, 1, 2}


def test_losses_reach_the_chunks_they_belong_to() -> None:
    batches = make_batches(CHUNKS)
    for _ in range(20):
        rows = next(batches)
        losses = np.where(rows.reward[:, 0] // CHUNK == 200, 100.0, 0.001).astype(np.float32)  # shard 2, first chunk
        batches.prioritise(batches.origin, losses)
    rows = next(batches)
    shard, row = np.divmod(rows.reward[:, 0].astype(int), 1000)
    assert (row[shard == 2] < CHUNK).mean() > 0.95
    assert (row[shard < 2] >= CHUNK).any()


def test_losses_are_split_by_part() -> None:
    origin = [Part(1, np.array([4])), Part(0, np.array([2, 2, 3]))]
    assert [part.tolist() for part in split_losses(origin, np.arange(4, dtype=np.float32))] == [[0], [1, 2, 3]]


def test_a_replay_that_came_back_empty_gives_nothing() -> None:
    with pytest.raises(NoWindowsError):
        next(make_batches([0, 0]))
