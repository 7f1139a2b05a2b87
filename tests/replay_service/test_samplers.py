from __future__ import annotations

from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from common.config import ReplayConfig, Sampling
from common.sequence import ChunkKey
from replay_service.samplers import SAMPLERS, Prioritized, Recent, Sampler, prioritized
from replay_service.windows import WindowIndex
from tests.replay_service.held import LENGTH, Held, all_windows, drawn, drawn_by, evict, insert, unequal_episodes

DRAWS = 20_000


def filled(sampler: Sampler, evictions: int = 0) -> tuple[WindowIndex, Held]:
    index = WindowIndex(LENGTH, sampler)
    held = unequal_episodes(index)
    for _ in range(evictions):
        evict(index, held)
    return index, held


def lose(sampler: Sampler, losses: dict[int, float]) -> None:
    sampler.prioritise(np.array(list(losses)), np.array(list(losses.values()), np.float32))


def assert_drawn_like(index: WindowIndex, shares: dict[Any, float]) -> None:
    counts = Counter(drawn(index, DRAWS))
    assert counts.keys() <= shares.keys()
    scale = DRAWS / sum(shares.values())
    expected = [share * scale for share in shares.values()]
    assert chisquare([counts[window] for window in shares], expected).pvalue > 1e-3


@pytest.mark.parametrize("evictions", [0, 1, 5])
@pytest.mark.parametrize("newest", [1, 7, 1000])
def test_recent_draws_from_its_mixture(newest: int, evictions: int) -> None:
    index, held = filled(Recent(0.3, newest), evictions)
    windows = all_windows(held)
    assert index.drawable_windows == len(windows)
    shares = dict.fromkeys(windows, 0.7 / len(windows))
    for window in windows[-newest:]:
        shares[window] += 0.3 / min(newest, len(windows))
    assert_drawn_like(index, shares)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("evictions", [0, 1, 5])
def test_prioritized_draws_in_proportion_to_a_power_of_the_loss(exponent: float, evictions: int) -> None:
    sampler = Prioritized(exponent)
    index, held = filled(sampler)
    assert_drawn_like(index, dict.fromkeys(all_windows(held), 1.0))  # nothing is known yet
    losses = {0: 4.0, 3: 0.25, 7: 9.0, 12: 2.0}
    lose(sampler, losses)
    for _ in range(evictions):
        evict(index, held)
    highest = max(losses.values())
    assert_drawn_like(index, {window: losses.get(window[0][0], highest) ** exponent for window in all_windows(held)})


def test_new_chunks_have_the_highest_priority_seen_so_far_also_when_it_was_seen_later() -> None:
    sampler = Prioritized(1.0)
    index, held = filled(sampler)
    lose(sampler, {12: 6.0})
    lose(sampler, {12: 3.0})
    insert(index, held, ChunkKey(0, 0, 0, 9, 0), 5, True)
    assert_drawn_like(index, {window: 3.0 if window[0][0] == 12 else 6.0 for window in all_windows(held)})


def test_a_chunk_keeps_its_priority_while_its_episode_goes_on() -> None:
    sampler = Prioritized(1.0)
    index, held = WindowIndex(LENGTH, sampler), Held()
    insert(index, held, ChunkKey(0, 0, 0, 0, 0), 5, False)
    insert(index, held, ChunkKey(1, 0, 0, 0, 0), 5, True)
    lose(sampler, {0: 8.0, 1: 2.0})
    insert(index, held, ChunkKey(0, 0, 0, 0, 1), 2, True)
    assert_drawn_like(index, {window: 2.0 if window[0][0] == 1 else 8.0 for window in all_windows(held)})


@pytest.mark.parametrize("loss", [0.0, -1.0, float("nan"), float("inf"), 1e30])
def test_no_loss_makes_a_window_impossible_or_the_only_one_for_ever(loss: float) -> None:
    sampler = Prioritized(1.0)
    index, held = filled(sampler)
    lose(sampler, {0: loss})
    possible = set(drawn_by(index, 3, Constantly(0))) | set(drawn_by(index, 3, Constantly(-1)))
    assert possible <= set(all_windows(held))
    lose(sampler, {0: 2.0**20})  # the highest there is
    assert set(drawn(index, DRAWS)) == set(all_windows(held))


class Constantly(np.random.Generator):
    """Always the tick that is asked for; −1 is the last one."""

    def __init__(self, tick: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.tick = tick

    def integers(self, high: Any, size: int) -> NDArray[np.int64]:  # type: ignore[override]
        return np.full(size, self.tick % high)


class Exhaustive(np.random.Generator):
    """Every number below `high` once, in order; `random` is a constant."""

    def __init__(self, constant: float = 0.0) -> None:
        super().__init__(np.random.PCG64(0))
        self.constant = constant

    def random(self, size: int) -> NDArray[np.float64]:  # type: ignore[override]
        return np.full(size, self.constant)

    def integers(self, high: Any, size: int | None = None) -> NDArray[np.int64]:  # type: ignore[override]
        return np.arange(len(high) if size is None else size)


events = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 7), st.sampled_from(["add", "end", "gap", "evict", "lose"])),
    max_size=90,
)


@settings(deadline=None, max_examples=150)
@given(events, st.integers(1, 30))
def test_every_window_has_exactly_its_share(events: list[tuple[int, int, str]], newest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prioritized, "_UNITS", 1)  # so few ticks that each can be looked at
        sampler = Prioritized(1.0)
        index, held, following = WindowIndex(LENGTH, sampler), Held(), dict.fromkeys(range(3), (0, 0))
        recent = WindowIndex(LENGTH, Recent(0.5, newest))
        losses: dict[int, int] = {}
        highest = 1
        for actor, number, event in events:
            if event == "evict":
                if held:
                    evict(index, held)
                    recent.evict()
            elif event == "lose":  # also of chunks that are no longer held, or not yet
                sequence = held.inserted + 1 - number
                lose(sampler, {sequence: number})
                if any(window[0][0] == sequence for window in all_windows(held)):
                    losses[sequence] = number
                    highest = max(highest, number)
            else:
                episode, chunk = following[actor]
                key = ChunkKey(actor, 0, 0, episode, chunk + (event == "gap"))
                recent.append(held.inserted, key, number, event == "end")
                insert(index, held, key, number, event == "end")
                following[actor] = (episode + 1, 0) if event == "end" else (episode, key.index + 1)
        windows = all_windows(held)
        assert index.drawable_windows == recent.drawable_windows == len(windows)
        if not windows:
            return
        shares = Counter({window: losses.get(window[0][0], highest) for window in windows})
        assert Counter(drawn_by(index, shares.total(), Exhaustive())) == shares
        assert drawn_by(recent, len(windows), Exhaustive(0.5)) == windows
        assert drawn_by(recent, len(windows[-newest:]), Exhaustive(0.49)) == windows[-newest:]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_seed_decides_the_draws(name: str) -> None:
    first, _ = filled(SAMPLERS[name](ReplayConfig()))
    second, _ = filled(SAMPLERS[name](ReplayConfig()))
    assert drawn(first, 50, seed=3) == drawn(second, 50, seed=3)
    assert drawn(first, 50, seed=3) != drawn(first, 50, seed=4)


def test_every_way_of_sampling_is_a_choice_of_the_flag() -> None:
    assert set(get_args(Sampling)) == SAMPLERS.keys()


def test_shards_share_the_newest_windows() -> None:
    sampler = SAMPLERS["recent"](ReplayConfig(recent_fraction=1.0, recent_windows=6, shards=2))
    index, held = filled(sampler)
    assert set(drawn(index, 200)) == set(all_windows(held)[-3:])
