"""Batches whose rows stay on the device, here the CPU, beside the ordinary ones: the same to the bit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
import ray
import torch

from cluster.runtimes import ray_batches
from cluster.runtimes.assembly import MEMORIES, DeviceAssembly, HostAssembly
from cluster.runtimes.inline_batches import InlineBatches
from cluster.runtimes.on_device import decide, make_assembly, rows_per_shard
from cluster.runtimes.origin import Part
from cluster.runtimes.ray_batches import PREFETCH, RayBatches
from cluster.runtimes.ray_shard import ReplayShard
from cluster.runtimes.roles import Setting
from cluster.settings import parse_train
from common.config import Config
from common.errors import UserError
from common.presets import paper, smoke
from common.sequence import ROW_FIELDS, Rows, StreamKey
from learner.batch import Batch
from learner.device_rows import row_bytes
from learner.feed import Feed
from replay_service.codec import encode
from replay_service.parcel import Draw, unpack
from replay_service.replay import Replay, open_replay
from replay_service.stores.lmdb import shard_folder
from replay_service.stores.trouble import ChunkGoneError
from tests.replay_service.episodes import make_episode

ACTIONS = 1
CPU = torch.device("cpu")


def config_of(store: str, shards: int = 1) -> Config:
    """Room for 40 rows a shard, of which a batch of 4 × 8 asks for up to 32."""
    config = smoke()
    replay = dataclasses.replace(config.replay, capacity=160 * shards, shards=shards, prefill=16)
    return dataclasses.replace(config, replay_store=store, replay=replay, replay_on_device="on")


def setting_of(config: Config, folder: Path = Path()) -> Setting:
    return Setting(config, ACTIONS, "auto", folder, "cpu")


def host(config: Config) -> HostAssembly:
    assembly = make_assembly(setting_of(dataclasses.replace(config, replay_on_device="off")))
    assert isinstance(assembly, HostAssembly)
    return assembly


def on_cpu(config: Config) -> DeviceAssembly:
    assembly = make_assembly(setting_of(config))
    assert isinstance(assembly, DeviceAssembly)
    return assembly


def arrivals(packs: str) -> Iterator[Any]:
    """Encoded chunks of episodes of three streams, some too short for a window."""
    rng = random.Random(0)
    for episode in range(1000):
        sizes = [rng.randint(1, 11) for _ in range(rng.randint(1, 3))]
        for chunk in make_episode(episode, sizes, StreamKey(episode % 3, 0, 0), action_size=ACTIONS):
            yield encode(chunk, pack=packs == "always" or (packs == "some" and rng.random() < 0.5))


def assert_same_batch(one: Batch, other: Batch) -> None:
    for part, expected in zip(one, other, strict=True):
        assert (part.dtype, part.shape, part.is_contiguous()) == (expected.dtype, expected.shape, True)
        assert part.numpy().tobytes() == expected.numpy().tobytes()


def told(origin: list[Part]) -> list[tuple[int, list[int]]]:
    return [(part.shard, part.starts.tolist()) for part in origin]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("store", ["memory", "lmdb"])
@pytest.mark.parametrize("packs", ["never", "always", "some"])
def test_batches_are_the_ordinary_ones_through_evictions(tmp_path: Path, packs: str, store: str, shards: int) -> None:
    config = config_of(store, shards)
    sides: list[tuple[list[Replay], InlineBatches, Feed]] = []
    for name, assembly in (("host", host(config)), ("device", on_cpu(config))):
        replays = [open_replay(config, tmp_path / name, shard, ACTIONS) for shard in range(shards)]
        batches = InlineBatches(replays, assembly, seed=0, patience_seconds=0.0)
        sides.append((replays, batches, Feed(batches, CPU)))
    for number, data in zip(range(60 * shards), arrivals(packs), strict=False):
        for replays, *_ in sides:
            replays[number % shards].insert(data)
        if all(replay.windows for replay in sides[0][0]):
            for _ in range(2):
                assert_same_batch(next(sides[0][2]), next(sides[1][2]))
                assert told(sides[0][1].origin) == told(sides[1][1].origin)
    report = sides[0][0][0].report()
    assert report.inserted_env_steps > 4 * report.env_steps
    assert sides[1][2].bytes < sides[0][2].bytes * 2 / 3
    for replays, *_ in sides:
        for replay in replays:
            replay.close()


def test_memory_is_what_was_decided_at_the_start_and_never_more(tmp_path: Path) -> None:
    config = config_of("lmdb")
    assembly = on_cpu(config)
    tables, stagings = list(assembly.rows.tables), list(assembly.stagings)
    replay = open_replay(config, tmp_path, 0, ACTIONS)
    feed = Feed(InlineBatches([replay], assembly, seed=0, patience_seconds=0.0), CPU)
    most = 0
    for data in zip(range(300), arrivals("never"), strict=False):
        replay.insert(data[1])
        if replay.windows:
            next(feed)
            most = max(most, assembly.residences[0].rows)
    room = rows_per_shard(config)
    assert 40 < most <= room
    assert all(kept is table for kept, table in zip(assembly.rows.tables, tables, strict=True))
    assert sum(table.nbytes for table in tables) == room * row_bytes(ACTIONS)
    assert len(assembly.stagings) == len(stagings) == MEMORIES
    assert {id(each.new.image) for each in assembly.stagings} == {id(each.new.image) for each in stagings}
    replay.close()


def fill(replay: Replay, draw: Draw, out: Rows) -> None:
    with replay.read(draw) as parcel:
        unpack(parcel, out)


def whole(replay: Replay, draw: Draw) -> Rows:
    rows = Rows.empty((draw.batch_size, draw.length), ACTIONS)
    fill(replay, draw, rows)
    return rows


def test_a_batch_that_is_given_up_halfway_leaves_nothing_that_never_came() -> None:
    """The first shard's rows were read already when the second one's cannot be had."""
    config = config_of("memory", shards=2)
    replays = [open_replay(config, None, shard, ACTIONS) for shard in range(2)]
    for number, data in zip(range(12), arrivals("never"), strict=False):
        replays[number % 2].insert(data)

    def gone(draw: Draw, out: Rows) -> None:
        raise ChunkGoneError

    assembly = on_cpu(config)
    assembly.begin()
    assembly.add(0, replays[0].draw(2), partial(fill, replays[0]))
    with pytest.raises(ChunkGoneError):
        assembly.add(1, replays[1].draw(2), gone)
    assert assembly.lacks == 2
    for _ in range(20):
        assembly.begin()
        expected = []
        for shard, replay in enumerate(replays):
            draw = replay.draw(2)
            assembly.add(shard, draw, partial(fill, replay))
            expected.append(whole(replay, draw))
        assert assembly.lacks == 0
        assert_same_batch(assembly.end().batch(), Batch.from_rows(Rows.concatenate(expected), CPU))


class Shard:
    """A shard without Ray, which may begin anew elsewhere."""

    open_stores: ClassVar[dict[Path, Any]] = {}  # LMDB opens a file once a process

    def __init__(self, setting: Setting) -> None:
        self.begin(setting)
        self.asked: list[str] = []
        self.call = SimpleNamespace(remote=self._call)

    def begin(self, setting: Setting) -> None:
        self.shard = ReplayShard(setting, 0)
        self.open_stores[shard_folder(setting.replay_folder, 0)] = self.shard.replay._store

    def _call(self, method: str, *args: Any) -> Any:
        self.asked.append(method)
        return getattr(self.shard, method)(*args)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "here"))
    monkeypatch.setattr(ray_batches, "LmdbReader", Shard.open_stores.__getitem__)


def over_ray(config: Config, shard: Any, direct: bool) -> RayBatches:
    return RayBatches(
        [shard],
        assembly=make_assembly(setting_of(config)),
        action_size=ACTIONS,
        seed=0,
        direct=direct,
        patience_seconds=0.0,
    )


class Inserted:
    """All rows that were inserted, so that a window can be held against them."""

    def __init__(self) -> None:
        self.by_reward: dict[float, tuple[Any, ...]] = {}

    def insert(self, shard: Shard, episode: int, sizes: list[int], pack: bool = False) -> None:
        for chunk in make_episode(episode, sizes, action_size=ACTIONS):
            shard.shard.insert([encode(chunk, pack=pack)])
            arrays = (getattr(chunk.rows, name) for name in ROW_FIELDS)
            self.by_reward |= dict(zip(chunk.rows.reward.tolist(), zip(*arrays, strict=True), strict=True))

    def hold_against(self, batch: Batch) -> set[int]:
        """Each window must be consecutive rows of one episode; the episodes."""
        for window in range(len(batch.reward)):
            rewards = batch.reward[window].tolist()
            assert rewards == [rewards[0] + step for step in range(len(rewards))]
            for row, reward in enumerate(rewards):
                for part, expected in zip(batch, self.by_reward[reward], strict=True):
                    np.testing.assert_array_equal(part[window, row].numpy(), expected)
        return {int(reward) // 1000 for reward in batch.reward.ravel().tolist()}


def until_idle(batches: RayBatches) -> None:
    """The thread has put the next batch together, and does nothing before that is taken."""
    if batches.coming is not None:
        wait([batches.coming])


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(("store", "direct"), [("lmdb", True), ("lmdb", False), ("memory", True)])
@pytest.mark.parametrize("pack", [False, True])
def test_batches_over_ray_are_the_ordinary_ones(tmp_path: Path, store: str, direct: bool, pack: bool) -> None:
    config = config_of(store)
    shards, feeds = [], []
    for on in ("off", "on"):
        each = dataclasses.replace(config, replay_on_device=on)
        shard = Shard(setting_of(each, tmp_path / on))
        for episode in range(5):
            Inserted().insert(shard, episode, [7, 3, 5], pack)
        shards.append(shard)
        feeds.append(Feed(over_ray(each, shard, direct), CPU))
    for _ in range(30):
        assert_same_batch(next(feeds[0]), next(feeds[1]))
        assert told(feeds[0].batches.origin) == told(feeds[1].batches.origin)
    for feed in feeds:
        until_idle(feed.batches)
    by_file = store == "lmdb" and direct
    assert set(shards[0].asked) == {"where", "windows", "draw" if by_file else "sample"}
    assert set(shards[1].asked) == {"where", "windows", "draw", *(() if by_file else ("read",))}
    assert shards[1].asked.count("read") < shards[1].asked.count("draw") / 2, "only while rows are missing"
    assert feeds[1].bytes < feeds[0].bytes / 5
    for feed in feeds:
        feed.batches.close()


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(("store", "direct"), [("lmdb", True), ("lmdb", False), ("memory", False)])
def test_chunks_that_are_evicted_between_draw_and_read_do_not_matter(tmp_path: Path, store: str, direct: bool) -> None:
    config, inserted = config_of(store), Inserted()
    shard = Shard(setting_of(config, tmp_path))
    batches = over_ray(config, shard, direct)
    feed = Feed(batches, CPU)
    seen: set[int] = set()
    for episode in range(30):
        until_idle(batches)
        inserted.insert(shard, episode, [5, 8, 4], pack=episode % 2 == 0)
        seen |= inserted.hold_against(next(feed))
    assert len(seen) > 15
    batches.close()


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(("store", "direct"), [("lmdb", True), ("lmdb", False), ("memory", False)])
def test_a_shard_in_another_life_gives_nothing_of_the_one_before(tmp_path: Path, store: str, direct: bool) -> None:
    """Its chunks have the same sequence numbers and sizes as those that are on the device."""
    config, inserted = config_of(store), Inserted()
    shard = Shard(setting_of(config, tmp_path / "first"))
    batches = over_ray(config, shard, direct)
    feed = Feed(batches, CPU)
    for episode in (0, 1, 2):
        inserted.insert(shard, episode, [7, 6])
    for _ in range(10):
        assert inserted.hold_against(next(feed)) <= {0, 1, 2}
    until_idle(batches)
    shard.begin(setting_of(config, tmp_path / "second"))
    for episode in (3, 4, 5):
        inserted.insert(shard, episode, [7, 6])
    for _ in range(1 + PREFETCH):
        inserted.hold_against(next(feed))
    for _ in range(10):
        assert inserted.hold_against(next(feed)) <= {3, 4, 5}
    batches.close()


def test_how_many_rows_a_full_replay_has() -> None:
    config = paper()
    rows = 1_000_000 + 2_000 + 50 * 50  # 2,000 reset rows; a batch beside them
    assert rows_per_shard(config) == rows
    two = dataclasses.replace(config, replay=dataclasses.replace(config.replay, shards=2))
    assert rows_per_shard(two) == 500_000 + 1_000 + 50 * 50


PAPER_BYTES = 1_004_500 * (12_288 + 6 * 4 + 9)


@pytest.mark.parametrize(
    ("choice", "device", "free", "rows", "about"),
    [
        ("off", "cuda", 10**15, 0, ""),
        ("auto", "cpu", 10**15, 0, ""),
        ("auto", "cuda", 2 * PAPER_BYTES, 1_004_500, "replay on cuda: yes, up to 1,004,500 rows, 12.4 GB"),
        (
            "auto",
            "cuda:1",
            2 * PAPER_BYTES - 2,
            0,
            "replay on cuda:1: no, 1,004,500 rows, 12.4 GB, are more than 50% of the 24.8 GB free there",
        ),
        ("on", "cuda", 2 * PAPER_BYTES - 2, 1_004_500, "replay on cuda: yes, up to 1,004,500 rows, 12.4 GB"),
        ("on", "cpu", 10**15, 1_004_500, "replay on cpu: yes, up to 1,004,500 rows, 12.4 GB"),
    ],
)
def test_where_rows_stay(choice: Any, device: str, free: int, rows: int, about: str) -> None:
    decision = decide(dataclasses.replace(paper(), replay_on_device=choice), 6, device, free)
    assert decision == (rows, about)


def test_rows_that_must_stay_and_do_not_fit_are_refused_in_one_line() -> None:
    config = dataclasses.replace(paper(), replay_on_device="on")
    with pytest.raises(UserError) as refused:
        decide(config, 6, "cuda", PAPER_BYTES)
    assert str(refused.value) == (
        "--replay-on-device on: 1,004,500 rows, 12.4 GB, are more than 90% of the 12.4 GB that are free on cuda: "
        "lower --replay.capacity, or give auto or off"
    )


def test_learners_on_one_host_share_what_is_free_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("memory")
    needed = rows_per_shard(config) * row_bytes(ACTIONS)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=int(needed / 0.9) + 2))
    assert isinstance(make_assembly(setting_of(config)), DeviceAssembly)
    with pytest.raises(UserError, match="--replay-on-device on"):
        make_assembly(setting_of(dataclasses.replace(config, learners=2)))


def test_a_value_that_is_none_of_the_three_is_refused() -> None:
    with pytest.raises(UserError, match="replay-on-device"):
        parse_train(["--preset", "smoke", "--run-dir", "x", "--replay-on-device", "perhaps"])
    assert parse_train(["--preset", "smoke", "--run-dir", "x"]).settings.replay_on_device == "auto"
