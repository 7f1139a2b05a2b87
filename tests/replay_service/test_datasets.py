"""Chunks → folder → chunks, and folders that are not as they must be."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from common.errors import UserError
from common.sequence import Chunk, StreamKey
from replay_service.codec import CodecError
from replay_service.datasets.dataset import Dataset
from replay_service.datasets.export import Exported, export
from replay_service.source import Source
from replay_service.stock import episode_parts, in_order
from replay_service.stores.trouble import ChunkGoneError
from tests.replay_service.episodes import assert_same, make_episode
from tests.replay_service.sources import FACTS, evict_chunks, fill, interleaved, some_chunks, source


def quiet(done: int, total: int) -> None:
    """Progress nobody looks at."""


def exported(folder: Path, chunks: list[Chunk], **how: Any) -> Exported:
    fill(folder / "store", chunks, **how)
    return export(source(folder / "store"), folder / "data", quiet)


def contents(data: Source) -> list[Chunk]:
    return [data.chunk(stored) for stored in in_order(data.stocks())]


def assert_same_chunks(left: list[Chunk], right: list[Chunk]) -> None:
    assert [(chunk.key, chunk.is_last) for chunk in left] == [(chunk.key, chunk.is_last) for chunk in right]
    for one, other in zip(left, right, strict=True):
        assert_same(one.rows, other.rows)


def test_chunks_come_back_bit_for_bit_in_their_order_with_their_borders_and_keys(tmp_path: Path) -> None:
    chunks = some_chunks()
    exported(tmp_path, chunks)
    data = Dataset(tmp_path / "data")
    data.check()
    assert data.facts == FACTS
    assert_same_chunks(contents(data), chunks)
    assert_same_chunks(contents(data), contents(source(tmp_path / "store")))


def test_a_dataset_exports_to_the_same_dataset(tmp_path: Path) -> None:
    exported(tmp_path, some_chunks())
    export(Dataset(tmp_path / "data"), tmp_path / "again", quiet)
    for path in (tmp_path / "data").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_each_file_is_an_episode_that_any_program_can_read(tmp_path: Path) -> None:
    manifest = exported(tmp_path, some_chunks()).manifest
    first = json.loads((tmp_path / "data/dataset.json").read_text())["files"][0]
    rows = [chunk.rows for chunk in make_episode(0, [3, 2, 4])]
    tensors = safetensors.numpy.load_file(tmp_path / "data" / first["file"])
    assert sorted(tensors) == ["action", "discount", "image", "is_first", "reward"]
    assert np.array_equal(tensors["image"], np.concatenate([part.image for part in rows]))
    assert first["episode_return"] == sum(range(9))
    assert (first["key"], first["first_index"], first["rows"], first["finished"]) == ([0, 0, 0, 0], 0, 9, True)
    assert first["chunks"] == [[0, 3], [2, 2], [4, 4]]
    assert manifest.counts.files == 4
    assert (manifest.counts.episodes, manifest.counts.fragments) == (2, 2)
    assert (manifest.counts.chunks, manifest.counts.rows) == (9, 9 + 4 + 6 + 7)
    assert manifest.counts.env_steps == 2 * (26 - 4)


def test_shards_are_joined_by_turns(tmp_path: Path) -> None:
    left, right = make_episode(0, [3, 2, 4]), make_episode(0, [2, 2], StreamKey(1, 1, 0))
    fill(tmp_path, left)
    fill(tmp_path, right, shard=1)
    export(source(tmp_path, shards=2), tmp_path / "data", quiet)
    assert_same_chunks(contents(Dataset(tmp_path / "data")), interleaved(left, right))


def test_what_was_evicted_is_not_there_and_the_rest_keeps_its_order(tmp_path: Path) -> None:
    manifest = exported(tmp_path, some_chunks(), first=100, evict=3).manifest
    assert_same_chunks(contents(Dataset(tmp_path / "data")), some_chunks()[3:])
    assert [file.first_index for file in manifest.files] == [1, 2, 0, 0]


class Failing:
    """A source of which some chunks cannot be read."""

    def __init__(self, inner: Source, errors: dict[int, Exception]) -> None:
        self.inner = inner
        self.errors = errors
        self.facts, self.stocks = inner.facts, inner.stocks
        self.rewards, self.close = inner.rewards, inner.close

    def chunk(self, stored: Any) -> Chunk:
        if stored.sequence in self.errors:
            raise self.errors[stored.sequence]
        return self.inner.chunk(stored)


def test_chunks_that_are_damaged_or_missing_are_left_out_and_named(tmp_path: Path) -> None:
    chunks = some_chunks()
    fill(tmp_path / "store", chunks)
    failures = {0: ChunkGoneError("gone"), 2: CodecError("its checksum"), 6: CodecError("x")}
    result = export(Failing(source(tmp_path / "store"), failures), tmp_path / "data", quiet)
    assert result.evicted == 0
    assert [line.split(" (")[0] for line in result.damaged] == [f"shard 0, chunk {n}" for n in (2, 6, 0)]
    assert result.damaged[0].endswith("(actor 0, incarnation 0, environment 0, episode 0, index 1): its checksum")
    assert result.damaged[2].endswith("it is not there")
    left = [chunk for number, chunk in enumerate(chunks) if number not in failures]
    assert_same_chunks(contents(Dataset(tmp_path / "data")), left)
    assert result.manifest.counts.files == len(episode_parts(in_order(Dataset(tmp_path / "data").stocks())))


def test_chunks_that_are_evicted_meanwhile_are_left_out_and_counted(tmp_path: Path) -> None:
    fill(tmp_path / "store", some_chunks())
    before = source(tmp_path / "store")
    stocks = before.stocks()
    before.close()
    evict_chunks(tmp_path / "store", (0, 1, 2))
    now = Failing(source(tmp_path / "store"), {})
    answers = iter([stocks, now.stocks()])
    now.stocks = lambda: next(answers)
    result = export(now, tmp_path / "data", quiet)
    assert (result.evicted, result.damaged) == (3, [])
    assert_same_chunks(contents(Dataset(tmp_path / "data")), some_chunks()[3:])


@pytest.mark.parametrize("field", ["action", "reward", "discount"])
def test_a_chunk_with_a_number_that_is_not_finite_is_left_out_and_named(tmp_path: Path, field: str) -> None:
    chunks = some_chunks()
    getattr(chunks[2].rows, field)[1] = np.nan
    result = exported(tmp_path, chunks)
    (line,) = result.damaged
    assert line.endswith(f"episode 0, index 1): {field} holds a number that is not finite")
    data = Dataset(tmp_path / "data")
    data.check()
    assert_same_chunks(contents(data), [chunk for number, chunk in enumerate(chunks) if number != 2])


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "store", some_chunks())
    with pytest.raises(RuntimeError, match="the power is gone"):
        export(Failing(source(tmp_path / "store"), {4: RuntimeError("the power is gone")}), tmp_path / "data", quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_a_killed_export_left_is_no_dataset_and_no_obstacle(tmp_path: Path) -> None:
    exported(tmp_path, some_chunks())
    killed = tmp_path / ".writing-again"
    shutil.copytree(tmp_path / "data", killed)
    (killed / "000999.safetensors").write_bytes(b"half")
    export(source(tmp_path / "store"), tmp_path / "again", quiet)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted(os.listdir(tmp_path / "data"))
    assert not killed.exists()


def test_two_exports_to_one_folder_do_not_mix(tmp_path: Path) -> None:
    fill(tmp_path / "store", some_chunks())
    data = source(tmp_path / "store")

    def second(done: int, total: int) -> None:
        with pytest.raises(UserError, match="another export to"):
            export(data, tmp_path / "data", quiet)

    export(data, tmp_path / "data", second)
    Dataset(tmp_path / "data").check()


def test_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "store", some_chunks())
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="data is there already"):
        export(source(tmp_path / "store"), tmp_path / "data", quiet)
    assert not any((tmp_path / "data").iterdir())


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chunk is held"):
        exported(tmp_path, [])


# Damage


Change = Callable[[dict[str, Any]], object]
BAD_MANIFESTS: dict[str, tuple[Change, str]] = {
    "another format": (lambda m: m.update(format="lerobot"), "format is not dreamfleet-dataset"),
    "another version": (lambda m: m.update(version=9), "version 9 is not 1"),
    "a missing field": (lambda m: m.pop("task"), "task is missing"),
    "an unknown field": (lambda m: m.update(tasks="x"), "unknown field tasks; did you mean task"),
    "a wrong type": (lambda m: m.update(action_repeat="two"), "action_repeat: 'two' is no whole number"),
    "an action size": (lambda m: m.update(action_size=0), "action_size 0 is not between 1 and"),
    "an image shape": (lambda m: m.update(image_shape=[84, 84, 3]), r"image_shape \[84, 84, 3\] is not"),
    "no source": (lambda m: m.update(source=None), "source is no mapping of algorithm, seed"),
    "no files": (lambda m: m.update(files={}), "files is no list"),
    "counts": (lambda m: m["counts"].update(rows=25), "counts.rows is 25, the files listed make 26"),
    "a file missing": (lambda m: m["files"].pop(), "counts.files is 4, the files listed make 3"),
    "a task": (lambda m: m.update(task="\ud800"), "task '.*ud800' holds what cannot be printed"),
    "a huge return": (lambda m: m["files"][0].update(episode_return=10**400), "episode_return: a whole number of 1329"),
    "a path": (lambda m: m["files"][0].update(file="../x"), "'../x' cannot name a file of a dataset"),
    "a file twice": (lambda m: m["files"][0].update(file=m["files"][1]["file"]), "file 000001.safetensors is there"),
    "a short key": (lambda m: m["files"][0].update(key=[0, 0, 0]), "is not actor, incarnation, environment, episode"),
    "a huge key": (lambda m: m["files"][0].update(key=[2**63, 0, 0, 0]), "is not actor, incarnation"),
    "the same key": (lambda m: m["files"][1].update(key=[0, 0, 0, 0]), "is there twice"),
    "no chunks": (lambda m: m["files"][0].update(chunks=[]), r"chunks are no list of \[place, rows\]"),
    "a chunk's rows": (lambda m: m["files"][0].update(chunks=[[0, 3], [2, 2], [4, 0]]), "rows that are not between 1"),
    "too few rows": (lambda m: m["files"][0].update(chunks=[[0, 3], [2, 2]]), "its chunks have 5 rows, not 9"),
    "a place twice": (lambda m: m["files"][0].update(chunks=[[0, 3], [2, 2], [5, 4]]), "place 5 is there twice"),
    "an order": (lambda m: m["files"][0].update(chunks=[[0, 3], [90, 2], [4, 4]]), "has a place behind that of"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_that_contradicts_itself_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    exported(tmp_path, some_chunks())
    path = tmp_path / "data/dataset.json"
    content = json.loads(path.read_text())
    change, words = BAD_MANIFESTS[case]
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as refused:
        Dataset(tmp_path / "data")
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def mutated(content: Any, chance: random.Random) -> Any:
    """The value with something else somewhere in it."""
    if isinstance(content, dict | list) and content and chance.random() < 0.9:
        copy = dict(content) if isinstance(content, dict) else list(content)
        place = chance.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        copy[place] = mutated(copy[place], chance)
        return copy
    return chance.choice([None, True, -1, 0, 7, 2**63, 2**80, 0.5, math.nan, "", "\0", "../x", [], {}, [[1, 2]]])


def test_no_mutated_manifest_is_more_than_a_refusal(tmp_path: Path) -> None:
    exported(tmp_path, some_chunks())
    path = tmp_path / "data/dataset.json"
    content, chance, refusals, read = json.loads(path.read_text()), random.Random(0), list[str](), 0
    for _ in range(400):
        path.write_text(json.dumps(mutated(content, chance)))
        try:
            contents(Dataset(tmp_path / "data"))
            read += 1
        except (UserError, CodecError) as error:
            refusals.append(str(error))
    assert len(refusals) > 300
    assert read > 0  # a task of another name, say
    assert not any("\n" in line for line in refusals)


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no dataset: it has no dataset\.json"):
        Dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        Dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"dataset\.json: it is nested too deeply"):
        Dataset(tmp_path)


def rewrite(folder: Path, **changes: np.ndarray) -> None:
    """Another first file, with a checksum that fits."""
    path = folder / "000000.safetensors"
    tensors = {**safetensors.numpy.load_file(path), **changes}
    content = safetensors.numpy.save(tensors)
    path.write_bytes(content)
    manifest = json.loads((folder / "dataset.json").read_text())
    manifest["files"][0]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "dataset.json").write_text(json.dumps(manifest))


BAD_TENSORS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "another size": ({"action": np.zeros((9, 2), np.float32)}, r"action is float32 \(9, 2\), not float32 \(9, 3\)"),
    "another type": ({"reward": np.zeros(9)}, r"reward is float64 \(9,\), not float32 \(9,\)"),
    "fewer rows": ({"image": np.zeros((8, 64, 64, 3), np.uint8)}, "image is uint8"),
    "one more": ({"value": np.zeros(9, np.float32)}, "holds action, discount, image, is_first, reward, value, not"),
    "no reset row": ({"is_first": np.zeros(9, np.bool_)}, "is_first must be true on an episode's first row"),
    "two reset rows": ({"is_first": np.arange(9) % 5 == 0}, "is_first must be true on an episode's first row"),
    "not finite": ({"discount": np.full(9, np.nan, np.float32)}, "discount holds a number that is not finite"),
    "other rewards": ({"reward": np.ones(9, np.float32)}, r"its rewards make 9\.0, not 36\.0"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_a_file_that_holds_no_rows_as_they_must_be_is_refused(tmp_path: Path, case: str) -> None:
    exported(tmp_path, some_chunks())
    changes, words = BAD_TENSORS[case]
    rewrite(tmp_path / "data", **changes)
    with pytest.raises(UserError, match=f"000000.safetensors.*{words}"):
        Dataset(tmp_path / "data").check()


def test_a_changed_byte_a_cut_and_a_missing_file_are_found(tmp_path: Path) -> None:
    exported(tmp_path, some_chunks())
    path = tmp_path / "data/000001.safetensors"
    content = path.read_bytes()
    for changed in (content[:-1], content[:5000] + b"\x07" + content[5001:]):
        path.write_bytes(changed)
        data = Dataset(tmp_path / "data")
        with pytest.raises(UserError, match=r"000001\.safetensors differs from what was written"):
            data.check()
        bad = [stored for stored in data.chunks if stored.key.environment == 1 and stored.key.episode == 0]
        with pytest.raises(CodecError, match=r"000001\.safetensors differs"):
            data.chunk(bad[0])
        assert_same(data.chunk(data.chunks[0]).rows, some_chunks()[0].rows)
    path.unlink()
    with pytest.raises(UserError, match=r"000001\.safetensors: No such file"):
        Dataset(tmp_path / "data").check()
