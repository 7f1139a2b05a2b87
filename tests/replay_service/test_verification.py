"""What cannot be in a replay is found and named; what can be is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from common.sequence import StreamKey
from replay_service.source import StoreSource
from replay_service.stock import Stock, Stored
from replay_service.verification import Verdict, contradictions, read_all
from tests.replay_service.episodes import REPEAT, STREAM, make_episode
from tests.replay_service.sources import fill, some_chunks, source


def quiet(done: int, total: int) -> None:
    """Progress nobody looks at."""


def verdict(data: StoreSource) -> Verdict:
    return read_all(data, data.stocks(), quiet)


def change(folder: Path, sequence: int, damage: Callable[[bytes], bytes | None]) -> None:
    """Changes, or removes, a stored chunk's bytes behind the store's back."""
    with lmdb.open(str(folder / "shard-0"), max_dbs=3, map_size=2**26) as environment:
        chunks = environment.open_db(b"chunks")
        with environment.begin(write=True, db=chunks) as transaction:
            name = sequence.to_bytes(8, "big")
            data = damage(transaction.get(name))
            transaction.delete(name)
            if data is not None:
                transaction.put(name, data)


@pytest.mark.parametrize("evict", [0, 1, 3, 8])
def test_a_sound_store_is_good(tmp_path: Path, evict: int) -> None:
    fill(tmp_path, some_chunks(), evict=evict)
    data = source(tmp_path)
    assert verdict(data) == Verdict(good=9 - evict)
    assert list(contradictions(data.stocks()[0], 0, REPEAT)) == []


def test_a_flipped_bit_is_found_and_its_chunk_named(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks())
    change(tmp_path, 4, lambda data: data[:-50] + bytes([data[-50] ^ 1]) + data[-49:])
    found = verdict(source(tmp_path))
    assert found.good == 8
    (line,) = found.damaged
    assert line.startswith("shard 0, chunk 4 (actor 0, incarnation 0, environment 0, episode 0, index 2): ")
    assert "checksum" in line


def test_a_chunk_of_another_name_is_damage(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks())
    data = source(tmp_path)
    stocks = data.stocks()
    stocks[0].chunks[1] = stocks[0].chunks[1]._replace(rows=3)
    found = read_all(data, stocks, quiet)
    assert found.good == 8
    assert "in its place is chunk (0, 0, 1, 0, 0) of 2 rows" in found.damaged[0]


def test_what_is_evicted_meanwhile_is_no_damage_and_what_else_is_gone_is(tmp_path: Path) -> None:
    fill(tmp_path, some_chunks())
    data = source(tmp_path)
    stocks = data.stocks()
    data.close()
    for number in (0, 1, 5):
        change(tmp_path, number, lambda _: None)
    found = read_all(source(tmp_path), stocks, quiet)
    assert (found.good, found.evicted) == (6, 2)
    (line,) = found.damaged
    assert line.startswith("shard 0, chunk 5 ")
    assert line.endswith("it is not there")


def stock(chunks: list[Stored], **changes: object) -> Stock:
    """A shard in which everything agrees."""
    marks = {chunk.key.stream: (chunk.key.episode, chunk.key.index) for chunk in chunks}
    env_steps = sum(chunk.env_steps(REPEAT) for chunk in chunks)
    return dataclasses.replace(Stock(chunks, marks, marks, env_steps, env_steps, 1), **changes)  # type: ignore[arg-type]  # any field


def counting(inserted: int, chunks: list[Stored], **changes: object) -> Stock:
    """A shard into which as many environment steps are said to have been inserted."""
    return stock(chunks, inserted_env_steps=inserted, later_inserted_env_steps=inserted, **changes)


def held(first: int = 0) -> list[Stored]:
    """Two episodes of one environment, three chunks each."""
    chunks = [*make_episode(4, [3, 2, 2]), *make_episode(5, [3, 2, 2])]
    return [Stored(0, first + n, chunk.key, len(chunk.rows), chunk.is_last) for n, chunk in enumerate(chunks)]


def without(*numbers: int, first: int = 0) -> list[Stored]:
    """Some chunks never came; the rest is numbered without a gap."""
    left = [chunk for number, chunk in enumerate(held()) if number not in numbers]
    return [chunk._replace(sequence=first + number) for number, chunk in enumerate(left)]


CASES: dict[str, tuple[Stock, list[str]]] = {
    "nothing held": (stock([]), []),
    "sound": (stock(held()), []),
    "the beginning evicted": (counting(99, without(0, 1, first=7)), []),
    "an episode never sent": (
        stock([*held()[:3], *(c._replace(key=c.key._replace(episode=9)) for c in held()[3:])]),
        [],
    ),
    "an episode broken off": (stock(without(2)), []),
    "going on while it was looked at": (
        stock(
            held(),
            marks={STREAM: (5, 1)},
            later_marks={STREAM: (6, 0)},
            inserted_env_steps=20,
            later_inserted_env_steps=30,
        ),
        [],
    ),
    "numbers missing": (
        counting(16, [*held()[:2], *held()[4:]]),
        ["shard 0: missing between two chunks: 2 to 3", "index 1): its episode's beginning is missing: index 0"],
    ),
    "a hole": (stock(without(1)), ["index 2): what comes before it in its episode is missing: index 1"]),
    "a beginning that the data it was filled from had not": (stock(without(0)), []),
    "a beginning lost": (counting(26, without(0)), ["20 environment steps are held and 26 counted"]),
    "no beginning of the second": (
        counting(99, without(3, 4, first=7)),
        ["index 2): its episode's beginning is missing: index 0 to 1"],
    ),
    "twice": (stock([*held(), held()[0]._replace(sequence=6)]), ["index 0): it comes after episode 5, index 2"]),
    "after the end": (
        stock([*held(), held()[5]._replace(sequence=6, key=held()[5].key._replace(index=3))]),
        ["index 3): its episode had ended before it"],
    ),
    "a mark behind": (stock(held(), later_marks={STREAM: (5, 1)}), ["no mark says that it was inserted"]),
    "no mark": (stock(held(), later_marks={}), ["no mark says that it was inserted"]),
    "a mark ahead": (stock(held(), marks={STREAM: (5, 7)}), ["was inserted and is missing"]),
    "a mark of what is evicted": (counting(99, held(3), marks={STREAM: (5, 2), StreamKey(0, 0, 1): (9, 9)}), []),
    "too few counted": (counting(10, held(3)), ["24 environment steps are held and 10 counted"]),
    "too many counted": (counting(26, held()), ["24 environment steps are held and 26 counted"]),
}


@pytest.mark.parametrize("case", CASES)
def test_contradictions_are_named_and_nothing_else(case: str) -> None:
    shard, lines = CASES[case]
    found = list(contradictions(shard, 0, REPEAT))
    assert len(found) == len(lines), found
    for line, words in zip(found, lines, strict=True):
        assert words in line
