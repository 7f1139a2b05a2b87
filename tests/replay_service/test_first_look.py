"""Chunks that a disk, or somebody, has changed since they were stored."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from common.config import ReplayConfig
from replay_service import first_look
from replay_service.codec import CodecError, check, encode
from replay_service.parcel import Draw
from replay_service.replay import Replay
from replay_service.stores.interface import Entry
from replay_service.stores.lmdb import LmdbStore
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, make_episode


def filled(folder: Path, pack: bool) -> Replay:
    """A replay of one episode in four chunks."""
    replay = Replay(
        ReplayConfig(capacity=1000),
        store=LmdbStore(folder, ACTION_SIZE, "never"),
        action_size=ACTION_SIZE,
        batch_length=4,
        action_repeat=REPEAT,
        seed=0,
    )
    replay.insert(*(encode(chunk, pack=pack) for chunk in make_episode(0, [4, 4, 4, 4])))
    return replay


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_byte_that_changed_on_the_disk_is_found_before_anybody_learns_from_it(
    tmp_path: Path, pack: bool, seed: int
) -> None:
    replay = filled(tmp_path, pack)
    content = (tmp_path / "data.mdb").read_bytes()
    payload = content.index(b"DFC2") + 128
    with open(tmp_path / "data.mdb", "r+b") as file:
        at = payload + random.Random(seed).randrange(4 * 12_288)
        file.seek(at)
        file.write(bytes([content[at] ^ 0x10]))
    with pytest.raises(
        CodecError, match=r"^chunk number \d of the replay is damaged: .*; dreamfleet replay export"
    ) as caught:
        replay.sample(64)
    assert "\n" not in str(caught.value)
    replay.close()


def test_another_chunk_in_the_place_of_one_is_found(tmp_path: Path) -> None:
    replay = filled(tmp_path, pack=False)
    replay.close()
    store = LmdbStore(tmp_path, ACTION_SIZE, "never")
    replay = Replay(
        ReplayConfig(capacity=1000),
        store=store,
        action_size=ACTION_SIZE,
        batch_length=4,
        action_repeat=REPEAT,
        seed=0,
    )
    other = make_episode(7, [9])[0]
    store.append([], evict=[3])
    store.append([Entry(3, other.key, encode(other), 0)], ())
    with pytest.raises(CodecError, match="chunk number 3 of the replay is another one than was stored"):
        replay.sample(64)
    replay.close()


def test_whole_chunks_are_read_again_and_again(tmp_path: Path) -> None:
    replay = filled(tmp_path, pack=True)
    for _ in range(3):
        assert len(replay.sample(64)) == 64
    replay.close()


def test_each_chunk_is_looked_at_once_and_the_memory_of_it_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    monkeypatch.setattr(first_look, "_REMEMBERED", 4)
    monkeypatch.setattr(first_look, "check", lambda data: looked.append(data) or check(data))
    look = first_look.FirstLook()
    chunks = [encode(chunk) for chunk in make_episode(0, [4, 4, 4, 4, 4, 4])]
    layouts = np.array([check(chunk).layout for chunk in chunks], np.int64)

    def read(*sequences: int) -> int:
        looked.clear()
        pieces = np.zeros((0, 5), np.int64)
        look.check(
            Draw(1, 4, pieces, list(sequences), layouts[list(sequences)], "edition"), [chunks[s] for s in sequences]
        )
        return len(looked)

    assert read(0, 1, 2, 3) == 4
    assert read(0, 1, 2, 3) == 0
    assert read(2, 3, 4) == 1  # takes the place of 0, which is evicted by then
    assert read(1, 2, 3, 4) == 0
    assert read(0) == 1
