"""How many updates a run has that collects nothing, and which environment steps they stand for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.presets import PRESETS
from replay_service.limiter import RateLimiter
from replay_service.offline_limiter import OfflineLimiter, limiter_of


def limiter(env_steps: int = 1200) -> OfflineLimiter:
    return OfflineLimiter(env_steps=env_steps, train_ratio=0.05, prefill=400, pretrain=5)


def test_updates_are_those_that_the_environment_steps_call_for() -> None:
    assert limiter().updates_owed() == limiter().updates_allowed() == 5 + 40
    assert limiter().env_steps_allowed() == 0


def test_environment_steps_follow_the_updates() -> None:
    run = limiter()
    seen = [run.env_steps]
    while run.updates_owed():
        run.updated(5)
        seen.append(run.env_steps)
    assert seen == [0, 400, 500, 600, 700, 800, 900, 1000, 1100, 1200]


@given(st.integers(1, 10**6), st.floats(1e-3, 3.0), st.integers(0, 10**5), st.integers(0, 1000), st.integers(1, 10**4))
def test_the_last_update_stands_for_the_last_step_and_no_step_goes_back(
    more: int, ratio: float, prefill: int, pretrain: int, stride: int
) -> None:
    run = OfflineLimiter(env_steps=prefill + more, train_ratio=ratio, prefill=prefill, pretrain=pretrain)
    total, before = run.updates_owed(), 0
    while run.updates_owed():
        run.updated(min(stride + total // 50, run.updates_owed()))
        assert before <= run.env_steps <= prefill + more
        before = run.env_steps
    assert run.updates == total
    assert total == 0 or run.env_steps == prefill + more


def test_going_back_to_a_checkpoint_goes_back_in_steps_and_forgives_nothing() -> None:
    run = limiter()
    run.updated(20)
    state = json.loads(json.dumps(run.state()))
    run.updated(15)
    back = limiter()
    back.restore(state, stored_env_steps=999_999)
    assert (back.updates, back.env_steps, back.updates_owed()) == (20, 700, 25)
    run.restore({**run.state(), "updates": 20}, run.env_steps)  # what the coordinator does when the learner died
    assert (run.updates, run.env_steps, run.updates_owed()) == (20, 700, 25)
    assert run.replay_debt_dropped_updates == back.replay_debt_dropped_updates == 0


def test_more_steps_on_resume_are_more_updates() -> None:
    run = limiter()
    run.updated(45)
    longer = limiter(env_steps=2000)
    longer.restore(run.state(), 0)
    assert longer.updates_owed() == 40


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_one(preset: str) -> None:
    config = PRESETS[preset]()
    assert type(limiter_of(config)) is RateLimiter
    offline = limiter_of(replace(config, offline="data"))
    expected = config.replay.pretrain + config.train_ratio * (config.env_steps - config.replay.prefill)
    assert offline.updates_owed() == pytest.approx(expected, abs=1)
