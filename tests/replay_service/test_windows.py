from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from common.sequence import ChunkKey
from replay_service.samplers import UniformEpisode, UniformStep
from replay_service.windows import WindowIndex
from tests.replay_service.held import (
    LENGTH,
    Held,
    all_windows,
    drawn,
    evict,
    fragments,
    insert,
    insert_episode,
    unequal_episodes,
)

DRAWS = 12_000


@pytest.mark.parametrize("evictions", [0, 1, 2, 5])
def test_uniform_step_draws_every_window_alike(evictions: int) -> None:
    index = WindowIndex(LENGTH, UniformStep())
    held = unequal_episodes(index)
    for _ in range(evictions):
        evict(index, held)
    expected = all_windows(held)
    assert index.windows == index.drawable_windows == len(expected)
    counts = Counter(drawn(index, DRAWS))
    assert counts.keys() == set(expected)  # last rows and borders included, and nothing else
    assert chisquare([counts[window] for window in expected]).pvalue > 1e-3


@pytest.mark.parametrize("evictions", [0, 1, 2, 5])
def test_uniform_episode_draws_every_finished_episode_alike_then_every_window_of_it(evictions: int) -> None:
    index = WindowIndex(LENGTH, UniformEpisode())
    held = unequal_episodes(index)
    for _ in range(evictions):
        evict(index, held)
    runs = [run for run in fragments(held) if len(run) >= LENGTH]
    share = {
        tuple(run[i : i + LENGTH]): DRAWS / len(runs) / (len(run) - LENGTH + 1)
        for run in runs
        for i in range(len(run) - LENGTH + 1)
    }
    counts = Counter(drawn(index, DRAWS))
    assert counts.keys() == share.keys()
    assert chisquare([counts[window] for window in share], list(share.values())).pvalue > 1e-3


@pytest.mark.parametrize("evictions", [1, 40, 100])
def test_the_same_chunks_give_the_same_draws_whatever_was_held_before(evictions: int) -> None:
    index, held = WindowIndex(LENGTH, UniformStep()), Held()
    for episode in range(evictions + 50):
        insert_episode(index, held, episode, [5 + episode % 3])
        if episode >= 50:
            evict(index, held)
    anew = WindowIndex(LENGTH, UniformStep())
    for number, chunk in enumerate(held.values()):
        anew.append(number, *chunk)
    first = min(held)
    assert drawn(index, 200) == [tuple((first + number, row) for number, row in window) for window in drawn(anew, 200)]


def test_uniform_episode_leaves_out_episodes_that_go_on() -> None:
    index, held = WindowIndex(LENGTH, UniformEpisode()), Held()
    insert(index, held, ChunkKey(0, 0, 0, 0, 0), 9, False)
    assert (index.windows, index.drawable_windows) == (6, 0)
    insert(index, held, ChunkKey(0, 0, 0, 0, 1), 2, True)
    assert (index.windows, index.drawable_windows) == (8, 8)


@pytest.mark.parametrize(
    "following",
    [ChunkKey(3, 0, 0, 0, 2), ChunkKey(3, 0, 0, 1, 0), ChunkKey(3, 1, 5, 0, 0)],
    ids=["a gap", "a new episode", "a new life of the actor"],
)
def test_an_episode_broken_off_counts_as_finished(following: ChunkKey) -> None:
    index, held = WindowIndex(LENGTH, UniformEpisode()), Held()
    insert(index, held, ChunkKey(3, 0, 0, 0, 0), 6, False)
    insert(index, held, ChunkKey(4, 0, 0, 0, 0), 6, False)
    insert(index, held, following, 6, False)
    assert index.drawable_windows == 3  # the other actor's episode goes on
    assert {window[0][0] for window in drawn(index, 100)} == {0}


def test_a_chunk_after_a_gap_never_joins() -> None:
    index, held = WindowIndex(LENGTH, UniformStep()), Held()
    for number in (0, 2, 3):
        insert(index, held, ChunkKey(0, 0, 0, 0, number), 3, number == 3)
    assert index.episodes == 2
    assert index.windows == 3
    assert set(drawn(index, 200)) == set(all_windows(held))


def test_fragments_shorter_than_a_window_are_counted_and_not_drawn() -> None:
    index, held = WindowIndex(LENGTH, UniformStep()), Held()
    insert_episode(index, held, 0, [2, 1])
    assert (index.rows, index.windows, index.episodes, index.short_fragments) == (3, 0, 1, 1)
    insert_episode(index, held, 1, [4, 2])
    assert index.short_fragments == 1
    evict(index, held)
    evict(index, held)
    assert (index.rows, index.windows, index.episodes, index.short_fragments) == (6, 3, 1, 0)
    evict(index, held)  # what is left of the second is too short as well
    assert (index.rows, index.windows, index.episodes, index.short_fragments) == (2, 0, 1, 1)
    evict(index, held)
    assert (index.rows, index.windows, index.episodes, index.short_fragments, len(index)) == (0, 0, 0, 0, 0)


def test_an_episode_whose_beginning_was_evicted_while_it_went_on_begins_anew() -> None:
    index, held = WindowIndex(LENGTH, UniformStep()), Held()
    insert(index, held, ChunkKey(0, 0, 0, 0, 0), 5, False)
    evict(index, held)
    insert(index, held, ChunkKey(0, 0, 0, 0, 1), 5, True)
    assert set(drawn(index, 100)) == set(all_windows(held))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 7), st.sampled_from(["add", "end", "gap", "evict"])), max_size=90
    ),
    st.sampled_from([UniformStep, UniformEpisode]),
)
def test_index_agrees_with_enumeration(
    actions: list[tuple[int, int, str]], sampler: type[UniformStep | UniformEpisode]
) -> None:
    index, held, following = WindowIndex(LENGTH, sampler()), Held(), dict.fromkeys(range(3), (0, 0))
    broken_off: set[int] = set()  # last chunk of a fragment that ended without is_last
    last: dict[int, int] = {}
    for actor, rows, action in actions:
        if action == "evict":
            if held:
                evict(index, held)
            continue
        episode, number = following[actor]
        if action == "gap":
            number += 1
            broken_off.add(last.get(actor, -1))
        insert(index, held, ChunkKey(actor, 0, 0, episode, number), rows, action == "end")
        last[actor] = max(held)
        following[actor] = (episode + 1, 0) if action == "end" else (episode, number + 1)
    runs = fragments(held)
    finished = [run for run in runs if held[run[-1][0]][2] or run[-1][0] in broken_off]
    assert index.rows == sum(rows for _, rows, _ in held.values())
    assert index.windows == len(all_windows(held))
    assert index.episodes == len(runs)
    assert index.short_fragments == sum(len(run) < LENGTH for run in finished)
    pool = runs if sampler is UniformStep else finished
    possible = {tuple(run[i : i + LENGTH]) for run in pool for i in range(len(run) - LENGTH + 1)}
    assert index.drawable_windows == len(possible)
    if possible:
        assert set(drawn(index, 20)) <= possible
