import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Config, EnvironmentConfig, ReplayConfig
from common.errors import UserError
from common.presets import PRESETS
from replay_service.limiter import RateLimiter, first_window_env_steps

SCALES = [1 / 4, 1 / 2, 2.0, 8.0]

# Ratios and tolerances that floats hold exactly, so that limiter and reference may be compared for equality.
exact_settings = st.fixed_dictionaries(
    {
        "train_ratio": st.sampled_from([1 / 64, 1 / 8, 1 / 2, 1.0, 4.0]),
        "prefill": st.integers(0, 60),
        "pretrain": st.integers(0, 20),
        "tolerance": st.integers(17, 160).map(lambda eighths: eighths / 8),
    }
)
turns = st.lists(st.tuples(st.sampled_from(["learner", "actors", "ratio"]), st.integers(1, 60)), max_size=60)


@dataclass
class Reference:
    """The rule as it is written, asked before every single update and environment step."""

    train_ratio: float
    prefill: int
    pretrain: int
    tolerance: float
    updates: float = 0.0
    env_steps: int = 0

    def called_for(self) -> float:
        return self.train_ratio * max(0, self.env_steps - self.prefill)

    def learner_waits(self) -> bool:
        return self.env_steps < self.prefill or self.updates >= self.pretrain + self.called_for() + self.tolerance

    def inserts_wait(self) -> bool:
        return self.env_steps > self.prefill and self.updates < self.called_for() - self.tolerance

    def change(self, scale: float) -> None:
        """Counts updates as if the new ratio had always held and nobody had moved within the band."""
        error = self.updates - self.called_for()
        self.train_ratio *= scale
        self.tolerance *= scale
        beyond = min(error, 0) + max(error - self.pretrain, 0)
        highest = self.pretrain + self.tolerance
        self.updates = min(error - beyond + beyond * scale, highest) + self.called_for()


def most(allowed: Callable[[], bool], step: Callable[[], None], limit: int) -> int:
    count = 0
    while count < limit and allowed():
        step()
        count += 1
    return count


@settings(deadline=None)
@given(exact_settings, turns)
def test_limiter_allows_exactly_what_the_rule_allows(numbers: dict[str, Any], turns: list[tuple[str, int]]) -> None:
    limiter, rule = RateLimiter(**numbers), Reference(**numbers)
    done_in_all = 0
    for who, wish in turns:
        if who == "ratio":
            scale = SCALES[wish % len(SCALES)]
            if numbers["pretrain"] + 2 * rule.tolerance * scale <= rule.train_ratio * scale:
                continue
            limiter.set_train_ratio(rule.train_ratio * scale)
            rule.change(scale)
        elif who == "learner":
            done = min(wish, limiter.updates_allowed())

            def update() -> None:
                rule.updates += 1

            assert done == most(lambda: not rule.learner_waits(), update, wish)
            limiter.updated(done)
            done_in_all += done
        else:
            done = min(wish, limiter.env_steps_allowed())

            def insert() -> None:
                rule.env_steps += 1

            # One step is allowed while the band holds before it; a budget holds the band after it as well.
            allowed = most(lambda: not rule.inserts_wait(), insert, wish)
            assert done in (allowed, allowed - 1)
            rule.env_steps += done - allowed
            assert not rule.inserts_wait()
            limiter.inserted(done)
        assert (limiter.updates, limiter.env_steps) == (done_in_all, rule.env_steps)
        assert limiter.error == rule.updates - rule.called_for()
        assert limiter.updates_allowed() or limiter.env_steps_allowed()


any_settings = st.fixed_dictionaries(
    {
        "train_ratio": st.floats(0.001, 8),
        "prefill": st.integers(0, 500),
        "pretrain": st.integers(0, 200),
    }
)
events = st.lists(
    st.tuples(st.sampled_from(["learner", "actors", "lose", "resume", "ratio"]), st.floats(0, 1), st.integers(0, 2000)),
    max_size=80,
)


@settings(deadline=None)
@given(any_settings, events, st.lists(st.integers(1, 300), min_size=1, max_size=4))
def test_band_holds_and_nobody_waits_for_ever_whatever_happens(
    numbers: dict[str, Any], events: list[tuple[str, float, int]], held_steps: list[int]
) -> None:
    def limiter_for(held: int) -> RateLimiter:  # as from_config does it, for some count of environments
        tolerance = numbers["train_ratio"] * max(50, 2 * held)
        return RateLimiter(**numbers, tolerance=tolerance, held_env_steps=held, window_env_steps=50)

    held, ratio = held_steps[0], numbers["train_ratio"]
    limiter, saved, at_save = limiter_for(held), None, 0
    stored = 0  # what the stores know of
    for event, fraction, amount in events:
        if event == "learner":
            limiter.updated(int(fraction * limiter.updates_allowed()))
        elif event == "actors":
            steps = int(fraction * limiter.env_steps_allowed())
            limiter.inserted(steps)
            stored += steps
        elif event == "lose":
            gone = int(fraction * stored)
            limiter.lose(gone)
            stored -= gone
        elif event == "ratio":
            before = limiter.updates_allowed(), limiter.env_steps_allowed()
            ratio = 0.001 + 8 * fraction
            limiter.set_train_ratio(ratio)
            if before[0] == 0:  # who waits goes on waiting
                assert limiter.updates_allowed() == 0
            if before[1] == 0:
                assert limiter.env_steps_allowed() == 0
        elif amount % 2 or saved is None:
            saved, at_save = json.loads(json.dumps(limiter.state())), stored
        else:
            held = held_steps[amount % len(held_steps)]
            limiter = limiter_for(held)
            stored = int(fraction * 2 * max(at_save, 100))  # the stores went on, or lost something
            limiter.restore(saved, stored)
            ratio = limiter.train_ratio
            assert ratio == saved["train_ratio"]
        tolerance = ratio * max(50, 2 * held)
        assert limiter.env_steps - limiter.lost_env_steps == stored
        assert -tolerance - 1e-5 <= limiter.error < numbers["pretrain"] + tolerance + 1
        assert limiter.updates_allowed() <= math.ceil(numbers["pretrain"] + 2 * tolerance + 1e-6)
        if limiter.updates_allowed() == 0:
            assert limiter.env_steps_allowed() >= held  # enough to fill somebody's chunk
        if stored < numbers["prefill"]:
            assert limiter.updates_allowed() == 0
            assert stored + limiter.env_steps_allowed() >= 50  # enough for a window
        assert ratio * limiter.env_steps_allowed() <= (
            ratio * numbers["prefill"] + numbers["pretrain"] + 2 * tolerance + 1 + 1e-6
        )


def test_rounding_of_floats_refuses_no_tolerance_that_is_just_enough() -> None:
    ratio = 2.6758969852858243  # 50 * ratio / ratio is less than 50
    limiter = RateLimiter(train_ratio=ratio, prefill=0, pretrain=0, tolerance=50 * ratio, window_env_steps=50)
    assert limiter.env_steps_allowed() == 50


@pytest.mark.parametrize("tenths", [1, 3, 7])
def test_updates_owed_are_those_the_environment_steps_call_for_to_the_last_one(tenths: int) -> None:
    for env_steps in range(5000, 30_000, 10):
        limiter = RateLimiter(train_ratio=tenths / 10, prefill=5000, pretrain=100, tolerance=1000)
        limiter.inserted(env_steps)
        assert limiter.updates_owed() == 100 + tenths * (env_steps - 5000) // 10
        limiter.updated(limiter.updates_owed())
        assert limiter.updates_owed() == 0


def test_nothing_is_owed_before_the_prefill_is_there() -> None:
    limiter = RateLimiter(train_ratio=0.1, prefill=5000, pretrain=100, tolerance=1000)
    limiter.inserted(4999)
    assert limiter.updates_owed() == 0


def paper(**changes: Any) -> RateLimiter:
    return RateLimiter.from_config(replace(PRESETS["paper"](), **changes))


def test_paper_schedule() -> None:
    limiter = paper()
    tolerance = 0.1 * 2 * 50 * 2 * 16
    assert (limiter.updates_allowed(), limiter.env_steps_allowed()) == (0, 5000 + 3200)
    limiter.inserted(4999)
    assert limiter.updates_allowed() == 0
    limiter.inserted(1)
    assert limiter.updates_allowed() == 100 + tolerance
    limiter.updated(420)
    assert limiter.updates_allowed() == 0
    limiter.inserted(1000)
    assert limiter.updates_allowed() == 100


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_has_a_limiter(name: str) -> None:
    assert RateLimiter.from_config(PRESETS[name]()).env_steps_allowed() > 0


def test_resuming_forgives_what_lies_beyond_the_band_and_says_how_much() -> None:
    limiter = paper()
    limiter.inserted(5000)
    limiter.updated(100)
    state = limiter.state()
    resumed = paper()
    resumed.restore(state, stored_env_steps=25_000)  # 20,000 steps came after the checkpoint: 2,000 updates are owed
    assert (resumed.updates, resumed.env_steps) == (100, 25_000)
    assert resumed.replay_debt_dropped_updates == 2000 - 100 - 320
    assert resumed.updates_allowed() == 100 + 2 * 320
    again = paper()
    again.restore(json.loads(json.dumps(resumed.state())), stored_env_steps=25_000)
    assert again.replay_debt_dropped_updates == resumed.replay_debt_dropped_updates
    assert again.updates_allowed() == resumed.updates_allowed()


def test_resuming_within_the_band_changes_nothing() -> None:
    limiter = paper()
    limiter.inserted(12_000)
    limiter.updated(700)
    resumed = paper()
    resumed.restore(limiter.state(), stored_env_steps=12_000)
    assert resumed.state() == limiter.state()
    assert resumed.error == limiter.error


def test_a_lost_store_is_filled_again_before_the_next_update_without_a_burst() -> None:
    limiter = paper()
    limiter.inserted(105_000)
    limiter.updated(10_100)
    resumed = paper()
    resumed.restore(limiter.state(), stored_env_steps=0)
    assert (resumed.updates, resumed.env_steps, resumed.lost_env_steps) == (10_100, 105_000, 105_000)
    assert resumed.updates_allowed() == 0
    assert resumed.env_steps_allowed() >= 5000
    resumed.inserted(4999)
    assert resumed.updates_allowed() == 0
    resumed.inserted(1)
    assert 0 < resumed.updates_allowed() <= 100 + 2 * 320
    assert resumed.replay_debt_dropped_updates == 0
    second = paper()
    second.restore(resumed.state(), stored_env_steps=0)  # and lost once more
    assert (second.env_steps, second.lost_env_steps) == (110_000, 110_000)


def test_losing_one_shard_of_several_does_not_stop_the_learner() -> None:
    limiter = paper()
    limiter.inserted(105_000)
    limiter.updated(10_000)
    allowed = limiter.updates_allowed()
    limiter.lose(50_000)
    assert limiter.updates_allowed() == allowed


def test_other_environments_on_resume_change_the_band_alone() -> None:
    limiter = paper(envs_per_actor=16)
    limiter.inserted(10_000)
    limiter.updated(1800)
    assert limiter.replay_debt_dropped_updates == 0
    resumed = paper(actors=1, envs_per_actor=1)
    resumed.restore(limiter.state(), stored_env_steps=10_000)
    assert resumed.updates_allowed() == 0
    assert resumed.replay_debt_dropped_updates == 1800 - 500 - 100 - 100
    resumed.inserted(10)
    assert resumed.updates_allowed() == 1


@settings(deadline=None)
@given(st.floats(0.01, 10), st.floats(0.01, 10), st.integers(0, 400), st.booleans())
def test_from_a_change_on_the_new_ratio_holds(old: float, new: float, beyond: int, learner_ahead: bool) -> None:
    limiter = RateLimiter(train_ratio=old, prefill=100, pretrain=5, tolerance=50 * old)

    def run(env_steps: int) -> None:
        end = limiter.env_steps + env_steps
        while limiter.env_steps < end:
            if learner_ahead:
                limiter.updated(limiter.updates_allowed())
            else:
                limiter.updated(min(1, limiter.updates_allowed()))
            limiter.inserted(min(10, limiter.env_steps_allowed(), end - limiter.env_steps))

    run(300 + beyond)
    before = limiter.updates, limiter.error
    limiter.set_train_ratio(new)
    run(1000)
    called_for = new * 1000
    band = 5 + 2 * 50 * new + 2
    assert called_for - band <= limiter.updates - before[0] <= called_for + band


def test_a_resumed_run_goes_on_at_the_ratio_it_had() -> None:
    limiter = paper()
    limiter.inserted(12_000)
    limiter.updated(700)
    limiter.set_train_ratio(0.4)
    resumed = paper()
    resumed.restore(json.loads(json.dumps(limiter.state())), stored_env_steps=12_000)
    assert resumed.train_ratio == 0.4
    assert resumed.state() == limiter.state()
    assert resumed.updates_allowed() == limiter.updates_allowed()
    assert resumed.env_steps_allowed() == limiter.env_steps_allowed()


def test_a_checkpoint_from_before_ratios_changed_keeps_the_runs_own() -> None:
    state = paper().state()
    del state["train_ratio"]
    resumed = paper(train_ratio=0.3)
    resumed.restore(state, stored_env_steps=0)
    assert resumed.train_ratio == 0.3


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_ratio_is_refused_and_changes_nothing(ratio: float) -> None:
    limiter = paper()
    limiter.inserted(12_000)
    before = limiter.state()
    with pytest.raises(UserError, match="--train-ratio"):
        limiter.set_train_ratio(ratio)
    assert limiter.state() == before


def test_a_ratio_that_must_deadlock_is_refused_and_changes_nothing() -> None:
    limiter = RateLimiter(train_ratio=0.1, prefill=1000, pretrain=100, tolerance=1.0, held_env_steps=100)
    before = limiter.state()
    with pytest.raises(UserError, match="must be above"):
        limiter.set_train_ratio(2.0)  # a chunk calls for 200 updates, and 100 + 2 · 20 are allowed
    assert limiter.state() == before


def test_a_lower_ratio_forgives_nothing_and_owes_less_for_what_waits() -> None:
    limiter = paper()
    limiter.inserted(5000 + 2000)
    limiter.updated(100)  # of the 200 that 2,000 environment steps call for, and the pretraining
    assert limiter.updates_owed() == 200
    limiter.set_train_ratio(0.01)
    assert limiter.updates_owed() == 100 + 10
    assert limiter.replay_debt_dropped_updates == 0


def test_seconds_waited_are_added_up_by_side_and_saved() -> None:
    limiter = paper()
    limiter.wait("insert", 1.5)
    limiter.wait("update", 2.0)
    limiter.wait("insert", 0.5)
    resumed = paper()
    resumed.restore(limiter.state(), 0)
    assert (resumed.insert_wait_seconds, resumed.update_wait_seconds) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": 0.0}, "above 0"),
        ({"tolerance": float("nan")}, "above 0"),
        ({"train_ratio": 0.0}, "--train-ratio"),
        ({"prefill": -1}, "--replay.prefill"),
        ({"pretrain": -1}, "--replay.pretrain"),
        ({"held_env_steps": 200}, "above 10"),
        ({"held_env_steps": 0, "train_ratio": 20.0}, "above 10"),
        ({"window_env_steps": 1101}, "at least 1001"),
    ],
)
def test_numbers_that_must_deadlock_are_refused(change: dict[str, float], message: str) -> None:
    good: dict[str, Any] = {"train_ratio": 0.1, "prefill": 1000, "pretrain": 0, "tolerance": 10.0}
    RateLimiter(**good, held_env_steps=199, window_env_steps=1100)
    with pytest.raises(UserError, match=message):
        RateLimiter(**{**good, **change})


def test_whole_episode_sampling_needs_a_prefill_in_which_one_can_finish() -> None:
    replay = ReplayConfig(sampling="uniform_episode")
    with pytest.raises(UserError, match="at least 12800"):
        RateLimiter.from_config(Config(replay=replay))
    RateLimiter.from_config(Config(replay=replace(replay, prefill=12_800)))


def test_first_window_comes_with_the_rows_of_one_environment_or_its_whole_episode() -> None:
    config = Config(actors=1, envs_per_actor=2, environment=EnvironmentConfig(action_repeat=4, time_limit=1000))
    assert first_window_env_steps(config) == 2 * 4 * (50 + 50)
    assert first_window_env_steps(replace(config, replay=ReplayConfig(sampling="uniform_episode"))) == 2 * 1000
