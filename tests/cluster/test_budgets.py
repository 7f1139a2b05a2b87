"""What the limiter allows, divided among those who may do it."""

from __future__ import annotations

from dataclasses import replace

from cluster.budgets import Budgets
from cluster.runtimes.runtime import Role
from common.config import Config
from replay_service.offline_limiter import limiter_of
from tests.cluster.simulated import config

ONE, OTHER = Role("collector", 0), Role("collector", 1)


def budgets(wanted: Config, env_steps: int, *, by_steps: bool = False) -> Budgets:
    limiter = limiter_of(wanted)
    limiter.inserted(env_steps)
    return Budgets(wanted, limiter, by_steps=by_steps)


def wide() -> Config:
    """The limiter allows everything."""
    wanted = config()
    return replace(wanted, replay=replace(wanted.replay, prefill=2 * wanted.env_steps))


def test_collectors_share_what_the_run_still_wants() -> None:
    wanted = wide()
    stride = wanted.envs_per_actor * wanted.environment.action_repeat
    left = budgets(wanted, wanted.env_steps - 10 * stride)
    left.granted[ONE] = left.steps(sharing=2)
    left.granted[OTHER] = left.steps(sharing=1)
    assert left.granted == {ONE: 5 * stride, OTHER: 5 * stride}
    assert left.steps(sharing=1) == 0


def test_the_last_step_goes_to_one_of_them() -> None:
    wanted = wide()
    stride = wanted.envs_per_actor * wanted.environment.action_repeat
    left = budgets(wanted, wanted.env_steps - stride)
    assert [left.steps(sharing=2), left.steps(sharing=1)] == [0, stride]
    assert not left.collected_all
    left.held[ONE] = stride
    assert left.collected_all


def test_calls_that_end_by_steps_are_a_chunk_long() -> None:
    wanted = wide()
    stride = wanted.envs_per_actor * wanted.environment.action_repeat
    assert budgets(wanted, 0, by_steps=True).steps(sharing=1) == stride * wanted.replay.chunk_rows


def test_what_a_dead_collector_was_granted_is_free_again() -> None:
    wanted = wide()
    left = budgets(wanted, 0)
    all_of_it = left.steps(sharing=1)
    left.granted[ONE] = all_of_it
    left.held[ONE] = 3
    assert left.steps(sharing=1) == 0
    left.forget(ONE)
    assert left.steps(sharing=1) == all_of_it
