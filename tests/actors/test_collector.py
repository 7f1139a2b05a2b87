"""The collector: budgets, rows, weights."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.collector import Collector
from common.sequence import StreamKey
from tests.actors.scripted import NOT_ZERO, ListSink, ScriptedPolicy, collector, config


def test_joined_chunks_are_what_was_acted_and_seen() -> None:
    policy, sink = ScriptedPolicy(), ListSink()
    actor = collector(config(environments=2, chunk_rows=4), sink, policy, length=10)
    actor.set_weights(1, NOT_ZERO)
    actor.collect(2 * 30)
    episodes = sink.episodes()
    assert {key.environment for key, _ in episodes} == {0, 1}
    assert {number for _, number in episodes} == {0, 1, 2}
    for rows in episodes.values():
        assert rows.image[:, 5, 5, 1].tolist() == list(range(11))
        assert rows.is_first.tolist() == [True] + [False] * 10
        assert rows.action[0].tolist() == [0, 0]
        assert rows.reward[0] == 0
        # The scripted action shows the pixel of the image it was chosen from: the row before.
        np.testing.assert_allclose(rows.action[1:, 0], np.arange(10) / 255, atol=0.01)
        np.testing.assert_array_equal(rows.reward[1:], rows.action[1:, 0])


def test_one_policy_call_a_step_for_all_environments_with_noise_and_resets() -> None:
    policy = ScriptedPolicy()
    actor = collector(config(environments=3), policy=policy, length=4)
    actor.set_weights(1, NOT_ZERO)
    actor.collect(3 * 9)
    assert len(policy.calls) == 9
    assert all(call["training"] for call in policy.calls)
    assert [call["is_first"].tolist() for call in policy.calls] == [[t % 4 == 0] * 3 for t in range(9)]
    # The reset row enters the very next call, and the policy's state goes on in between.
    assert [call["pixel"].tolist() for call in policy.calls] == [[t % 4] * 3 for t in range(9)]
    assert [call["frames"].tolist() for call in policy.calls] == [[t % 4 + 1] * 3 for t in range(9)]


def test_episodes_live_on_from_call_to_call() -> None:
    sink = ListSink()
    actor = collector(config(environments=1, chunk_rows=3), sink, length=10)
    reports = [actor.collect(4), actor.collect(4), actor.collect(4)]
    assert [len(report.episodes) for report in reports] == [0, 0, 1]
    inserted = np.cumsum([report.inserted for report in reports])
    assert [*(inserted + [report.held for report in reports])] == [4, 8, 12]
    (rows,) = (rows for (_, number), rows in sink.episodes().items() if number == 0)
    assert rows.image[:, 0, 0, 0].tolist() == list(range(11))


def test_episode_report_sums_rewards_and_counts_environment_steps() -> None:
    policy = ScriptedPolicy()
    actor = collector(config(environments=1, action_repeat=2), policy=policy, length=6)
    actor.set_weights(7, NOT_ZERO)
    (episode,) = actor.collect(6).episodes
    assert episode.env_steps == 6
    assert episode.weights_version == 7
    assert episode.episode_return == pytest.approx(2 * (0 + 2 + 4) / 255, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(
    environments=st.integers(1, 4),
    action_repeat=st.integers(1, 4),
    budgets=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    length=st.integers(1, 15),
    fails_at=st.none() | st.integers(0, 10),
)
def test_budget_is_never_exceeded_and_used_up_to_less_than_one_step(
    environments: int, action_repeat: int, budgets: list[int], length: int, fails_at: int | None
) -> None:
    sink = ListSink(action_repeat)
    actor = collector(
        config(environments, chunk_rows=3, action_repeat=action_repeat), sink, length=length, fails_at=fails_at
    )
    stepped = inserted = failures = 0
    for budget in budgets:
        report = actor.collect(budget)
        stepped, inserted = stepped + report.stepped, inserted + report.inserted
        failures += report.environment_failures
        assert report.stepped <= budget
        if report.environment_failures == 0:
            assert budget - report.stepped < environments * action_repeat
    if failures == 0:
        assert stepped == inserted + report.held
    assert inserted == sum(rows.env_steps(action_repeat) for rows in sink.episodes().values())
    actor.close()


def test_budget_below_one_step_of_all_environments_steps_nothing() -> None:
    policy = ScriptedPolicy()
    actor = collector(config(environments=4, action_repeat=2), policy=policy)
    actor.set_weights(1, NOT_ZERO)
    assert actor.collect(7).stepped == 0
    assert policy.calls == []


def test_full_action_repeat_counts_where_the_episode_ends_within_it() -> None:
    sink = ListSink(4)
    actor = collector(config(environments=1, action_repeat=4, chunk_rows=50), sink, length=6)
    report = actor.collect(8)
    assert report.stepped == 8
    assert report.inserted + report.held == 8
    assert report.episodes[0].env_steps == 8


def test_time_limit_of_the_call_stops_the_stepping() -> None:
    class Slow(ScriptedPolicy):
        def act(self, *args: Any, **options: Any) -> Any:
            time.sleep(0.02)
            return super().act(*args, **options)

    actor = collector(config(environments=1), policy=Slow())
    actor.set_weights(1, NOT_ZERO)
    report = actor.collect(10**6, seconds=0.2)
    assert 1 <= report.stepped <= 10


def test_no_time_left_steps_nothing_and_still_flushes() -> None:
    sink = ListSink()
    actor = collector(config(environments=1), sink)
    report = actor.collect(100, seconds=0.0)
    assert (report.stepped, report.inserted, sink.chunks) == (0, 0, [])


def test_version_zero_acts_uniformly_at_random_and_leaves_the_policy_alone() -> None:
    policy, sink = ScriptedPolicy(), ListSink()
    actor = collector(config(environments=4, chunk_rows=5), sink, policy, length=50)
    report = actor.collect(4 * 100)
    assert policy.calls == []
    assert report.weights_version == 0
    actions = np.concatenate([rows.action[1:] for rows in sink.episodes().values()])
    assert np.abs(actions).max() <= 1
    assert np.abs(np.quantile(actions, [0.1, 0.5, 0.9]) - [-0.8, 0.0, 0.8]).max() < 0.12
    assert len(np.unique(actions)) == actions.size


def test_only_newer_weights_are_taken() -> None:
    policy = ScriptedPolicy()
    actor = collector(config(), policy=policy)
    for version, bias in [(2, 0.2), (2, 0.9), (1, 0.1), (3, 0.3)]:
        actor.set_weights(version, {"bias": np.array(bias)})
    assert policy.weights == [0.2, 0.3]
    assert actor.collect(0).weights_version == 3


def test_first_weights_in_the_middle_of_an_episode_start_the_filter_there() -> None:
    policy = ScriptedPolicy()
    actor = collector(config(environments=2), policy=policy, length=10)
    actor.collect(2 * 3)
    actor.set_weights(1, NOT_ZERO)
    actor.collect(2 * 2)
    assert [call["is_first"].tolist() for call in policy.calls] == [[False, False]] * 2
    assert [call["frames"].tolist() for call in policy.calls] == [[1, 1], [2, 2]]


def test_new_weights_keep_the_policys_state() -> None:
    policy = ScriptedPolicy()
    actor = collector(config(environments=1), policy=policy, length=10)
    for version in (1, 2):
        actor.set_weights(version, NOT_ZERO)
        actor.collect(2)
    assert [call["frames"].tolist() for call in policy.calls] == [[1], [2], [3], [4]]


def test_environments_in_step_do_not_send_in_step() -> None:
    sink = ListSink()
    actor = collector(config(environments=16, chunk_rows=20), sink, length=1000)
    actor.collect(16 * 60)
    first = {chunk.key.environment: len(chunk.rows) for chunk in sink.chunks if chunk.key.index == 0}
    assert len(set(first.values())) > 5
    assert all(2 <= length <= 21 for length in first.values())
    assert all(len(chunk.rows) == 20 for chunk in sink.chunks if chunk.key.index > 0)


def test_same_seed_collects_the_same_rows_and_another_actor_or_life_others() -> None:
    def actions(seed: int, actor: int, incarnation: int) -> np.ndarray:
        sink = ListSink()
        settings = replace(config(environments=2, task="tests.tiny:make"), seed=seed)
        Collector(settings, actor, incarnation, sink, ScriptedPolicy(1)).collect(2 * 48)
        rows = sink.episodes()[StreamKey(actor, incarnation, 0), 0]
        return np.concatenate([rows.action[:, 0], rows.image.mean((1, 2, 3)), rows.reward])

    base = actions(0, 0, 0)
    assert np.array_equal(base, actions(0, 0, 0))
    for other in (actions(1, 0, 0), actions(0, 1, 0), actions(0, 0, 1)):
        assert not np.array_equal(base, other)


def test_environments_of_one_collector_have_seeds_of_their_own() -> None:
    sink = ListSink()
    Collector(config(environments=3, task="tests.tiny:make"), 0, 0, sink, ScriptedPolicy(1)).collect(3 * 24)
    starts = [rows.image[0].tobytes() for rows in sink.episodes().values()]
    assert len(set(starts)) == 3


def test_dm_control_is_collected() -> None:
    sink = ListSink(4)
    settings = config(environments=2, chunk_rows=5, action_repeat=4, task="cartpole_balance", time_limit=40)
    report = Collector(settings, 0, 0, sink, ScriptedPolicy(1)).collect(2 * 60)
    assert report.environment_failures == 0
    assert report.stepped == 120
    assert [episode.env_steps for episode in report.episodes] == [40, 40]
    for (_, number), rows in sink.episodes().items():
        if number == 0:
            assert rows.env_steps(4) == 40
            assert 0 < rows.reward.sum() <= 40
            assert rows.discount.tolist() == [1.0] * 11
