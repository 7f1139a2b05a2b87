import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from common.config import Config, ReplayConfig, Sampling, TrainingConfig
from common.errors import NoWindowsError, UserError
from common.presets import PRESETS
from common.sequence import Chunk, Rows, StreamKey
from replay_service.codec import CodecError, encode
from replay_service.replay import Replay, open_replay, split_batch
from replay_service.stores.interface import Entry, Store
from replay_service.stores.memory import MemoryStore
from replay_service.stores.trouble import StoreUnavailableError
from tests.replay_service.episodes import ACTION_SIZE, REPEAT, assert_same, make_episode

LENGTH = 5
SIZES = [[8, 7, 1], [5], [3, 1], [2, 2, 2, 2, 2]]  # chunk rows of each episode


def empty_replay(capacity: int = 10_000, sampling: Sampling = "uniform_step", seed: int = 0) -> Replay:
    return replay_on(MemoryStore(ACTION_SIZE), capacity, sampling, seed)


def replay_on(store: Store, capacity: int = 10_000, sampling: Sampling = "uniform_step", seed: int = 0) -> Replay:
    return Replay(
        ReplayConfig(capacity=capacity, sampling=sampling),
        store=store,
        action_size=ACTION_SIZE,
        batch_length=LENGTH,
        action_repeat=REPEAT,
        seed=seed,
    )


def all_chunks() -> list[Chunk]:
    return [chunk for episode, sizes in enumerate(SIZES) for chunk in make_episode(episode, sizes)]


def filled_replay(sampling: Sampling = "uniform_step", seed: int = 0) -> Replay:
    replay = empty_replay(sampling=sampling, seed=seed)
    for number, chunk in enumerate(all_chunks()):
        replay.insert(encode(chunk, pack=number % 2 == 0))
    return replay


def windows_of(batch: Rows) -> list[Rows]:
    return [Rows(*(getattr(batch, name)[b] for name in Rows.__dataclass_fields__)) for b in range(len(batch))]


@pytest.mark.parametrize("sampling", ["uniform_step", "uniform_episode"])
def test_sampled_windows_are_the_episodes_own_rows_bit_for_bit(sampling: Sampling) -> None:
    whole = {episode: Rows.concatenate([c.rows for c in make_episode(episode, SIZES[episode])]) for episode in range(4)}
    replay = filled_replay(sampling)
    batch = replay.sample(200)
    assert batch.image.shape == (200, LENGTH, 64, 64, 3)
    last_rows = set()
    for window in windows_of(batch):
        episode, first = divmod(int(window.reward[0]), 1000)
        assert_same(window, whole[episode][first : first + LENGTH])
        last_rows.add((episode, first + LENGTH == len(whole[episode])))
    assert {(0, True), (1, True), (3, True)} <= last_rows


@pytest.mark.parametrize(
    ("sampling", "weights"),
    [
        ("uniform_step", [1.0] * (12 + 1 + 6)),
        ("uniform_episode", [1 / 12] * 12 + [1.0] + [1 / 6] * 6),
    ],
)
def test_sampling_is_uniform_over_episodes_of_unequal_length(sampling: Sampling, weights: list[float]) -> None:
    replay = filled_replay(sampling)
    firsts = [0 * 1000 + row for row in range(12)] + [1000] + [3000 + row for row in range(6)]
    counts = Counter(int(reward) for _ in range(40) for reward in replay.sample(100).reward[:, 0])
    expected = 4000 * np.array(weights) / sum(weights)
    assert counts.keys() == set(firsts)
    assert chisquare([counts[first] for first in firsts], expected).pvalue > 1e-3


class Full(MemoryStore):
    """Takes so many calls of `append`."""

    takes = 1

    def append(self, entries: Sequence[Entry], evict: Sequence[int]) -> None:
        if not self.takes:
            raise StoreUnavailableError("full")
        self.takes -= 1
        super().append(entries, evict)


def test_an_insert_that_stored_a_part_and_failed_begins_another_life_and_so_does_the_shard_anew() -> None:
    replay = replay_on(store := Full(ACTION_SIZE), capacity=10)
    chunks = [encode(chunk) for chunk in make_episode(0, [5, 5])]
    lives = [replay.report().life]
    with pytest.raises(StoreUnavailableError):
        replay.insert(*chunks)
    assert replay.report().inserted_env_steps == 8, "the first of two transactions"
    lives.append(replay.report().life)
    store.takes = 2
    assert replay.insert(*chunks) == 10
    replay.sample(2)
    assert replay.report().life == lives[1]
    assert len({*lives, replay_on(store).report().life}) == 3


def test_a_batch_given_is_filled_and_returned() -> None:
    out = Rows.empty((6, LENGTH), ACTION_SIZE)
    assert filled_replay(seed=3).sample(6, out) is out
    assert_same(out, filled_replay(seed=3).sample(6))


def test_a_batch_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="not"):
        filled_replay().sample(6, Rows.empty((7, LENGTH), ACTION_SIZE))


def test_nothing_to_draw_raises_no_windows() -> None:
    replay = empty_replay(sampling="uniform_episode")
    for chunk in make_episode(0, [9], ends=False):
        replay.insert(encode(chunk))
    assert replay.report().windows == 0, "its episode has not finished"
    with pytest.raises(NoWindowsError):
        replay.sample(1)


def test_insert_acknowledges_new_environment_steps_and_nothing_twice() -> None:
    replay = empty_replay(capacity=8)
    chunks = [encode(chunk) for chunk in make_episode(0, [4, 4, 4])]
    assert [replay.insert(chunk) for chunk in chunks] == [6, 8, 8]
    assert replay.report().chunks == 1
    assert [replay.insert(chunk) for chunk in chunks] == [0, 0, 0]  # evicted or not
    assert replay.report().chunks == 1
    assert replay.report().inserted_env_steps == 22


def test_a_restarted_actor_is_another_stream() -> None:
    replay = empty_replay()
    for incarnation in (0, 1):
        (chunk,) = make_episode(0, [6], StreamKey(0, incarnation, 0))
        assert replay.insert(encode(chunk)) == 10


def test_oldest_chunks_leave_above_the_capacity_of_the_shard() -> None:
    replay = Replay(
        ReplayConfig(capacity=40, shards=2),
        store=MemoryStore(ACTION_SIZE),
        action_size=ACTION_SIZE,
        batch_length=LENGTH,
        action_repeat=REPEAT,
        seed=0,
    )
    for chunk in make_episode(0, [5] * 20):
        replay.insert(encode(chunk))
        assert replay.report().env_steps <= 20
    assert {int(reward) for reward in replay.sample(100).reward.ravel()} == set(range(90, 100))


def test_report_counts_what_is_held() -> None:
    report = filled_replay().report()
    assert (report.rows, report.chunks, report.episodes) == (35, 11, 4)
    assert (report.windows, report.short_fragments) == (19, 1)
    assert report.env_steps == report.inserted_env_steps == REPEAT * (35 - 4)
    assert report.bytes > 35 * 12288
    assert report.usage.resident_bytes > report.bytes


def test_malformed_chunks_and_other_action_sizes_are_refused_and_change_nothing() -> None:
    replay = filled_replay()
    before = replay.report()
    good = encode(make_episode(9, [6])[0])
    damaged = good.copy()
    damaged[-1] ^= 1
    for data in (damaged, good[:-1], encode(make_episode(9, [6], action_size=2)[0])):
        with pytest.raises(CodecError):
            replay.insert(data)
    assert replace(replay.report(), usage=before.usage) == before
    assert replay.insert(good) == 10


def test_random_state_goes_through_json_and_repeats_the_draws() -> None:
    replay = filled_replay(seed=1)
    replay.sample(10)
    state = json.loads(json.dumps(replay.random_state()))
    expected = replay.sample(10)
    other = filled_replay(seed=2)
    other.set_random_state(state)
    assert_same(other.sample(10), expected)


def test_open_replay_takes_sizes_and_seed_from_the_configuration() -> None:
    config = replace(PRESETS["smoke"](), replay_store="memory")
    replays = [open_replay(config, None, shard, ACTION_SIZE) for shard in (0, 0, 1)]
    for replay in replays:
        for chunk in make_episode(0, [10] * 3):
            assert replay.insert(encode(chunk)) == chunk.rows.env_steps(4)
    batches = [replay.sample(20) for replay in replays]
    assert batches[0].reward.shape == (20, 8)
    assert_same(batches[0], batches[1])
    assert not np.array_equal(batches[0].reward, batches[2].reward)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(replay=ReplayConfig(capacity=3000)), "--replay.capacity"),
        (Config(replay=ReplayConfig(capacity=100_000, shards=64)), "--replay.capacity"),
        (Config(training=TrainingConfig(batch_length=502)), "--training.batch-length"),
    ],
)
def test_open_replay_refuses_what_could_never_be_sampled(config: Config, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_replay(replace(config, replay_store="memory"), None, 0, ACTION_SIZE)


def test_split_batch_makes_every_window_of_every_shard_alike() -> None:
    rng = np.random.default_rng(0)
    splits = np.array([split_batch(50, [0, 1, 0, 3, 2, 0], rng) for _ in range(400)])
    assert (splits.sum(1) == 50).all()
    assert (splits[:, [0, 2, 5]] == 0).all()
    assert chisquare(splits.sum(0)[[1, 3, 4]], np.array([1, 3, 2]) * 20_000 / 6).pvalue > 1e-3


def test_split_batch_without_windows_raises_no_windows() -> None:
    with pytest.raises(NoWindowsError):
        split_batch(4, [0, 0], np.random.default_rng(0))
