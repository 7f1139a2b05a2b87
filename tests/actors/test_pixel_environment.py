"""Action repeat, bounds, time limit and termination, on scripted sources."""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np
import pytest
from dm_env import specs

from actors.environment import PixelEnvironment
from tests.actors.scripted import Counting


def build(action_repeat: int = 1, time_limit: int = 1000, **source: Any) -> tuple[PixelEnvironment, Counting]:
    counting = Counting(**source)
    return PixelEnvironment(counting, action_repeat, time_limit), counting


def test_rewards_are_summed_over_the_action_repeat_and_one_picture_is_drawn() -> None:
    environment, source = build(action_repeat=4)
    environment.reset()
    source.pictures = 0
    time_step = environment.step([0.5, 0.0])
    assert time_step.reward == pytest.approx(2.0)
    assert time_step.observation["image"][0, 0, 0] == 4
    assert source.pictures == 1


def test_action_repeat_stops_at_the_episodes_end() -> None:
    environment, _ = build(action_repeat=4, length=6)
    environment.reset()
    environment.step([1.0, 0.0])
    time_step = environment.step([1.0, 0.0])
    assert time_step.last()
    assert time_step.reward == pytest.approx(2.0)


@pytest.mark.parametrize("action_repeat", [1, 2, 3, 4])
def test_time_limit_ends_an_endless_task_with_discount_one(action_repeat: int) -> None:
    environment, source = build(action_repeat=action_repeat, time_limit=10, length=10**6)
    time_step = environment.reset()
    steps = 0
    while not time_step.last():
        time_step = environment.step([0.0, 0.0])
        steps += 1
    assert steps == -(-10 // action_repeat)
    assert source.steps == 10
    assert time_step.discount == 1.0


@pytest.mark.parametrize(("last_discount", "discount"), [(0.0, 0.0), (1.0, 1.0), (0.99, 1.0)])
def test_only_a_true_termination_has_discount_zero(last_discount: float, discount: float) -> None:
    environment, _ = build(length=3, last_discount=last_discount)
    environment.reset()
    time_steps = [environment.step([0.0, 0.0]) for _ in range(3)]
    assert [t.discount for t in time_steps] == [1.0, 1.0, discount]
    assert time_steps[-1].last()


def test_termination_on_the_time_limits_step_is_a_termination() -> None:
    environment, _ = build(length=5, time_limit=5, last_discount=0.0)
    environment.reset()
    assert [environment.step([0.0, 0.0]) for _ in range(5)][-1].discount == 0.0


def test_step_begins_an_episode_before_the_first_and_after_the_last() -> None:
    environment, source = build(length=2)
    assert environment.step([0.0, 0.0]).first()
    environment.step([0.0, 0.0])
    assert environment.step([0.0, 0.0]).last()
    first = environment.step([0.0, 0.0])
    assert first.first()
    assert first.reward is None
    assert source.resets == 2


def test_time_limit_starts_anew_with_each_episode() -> None:
    environment, _ = build(time_limit=3, length=10**6)
    for _ in range(2):
        environment.reset()
        assert [environment.step([0.0, 0.0]).last() for _ in range(3)] == [False, False, True]


def test_actions_are_mapped_to_the_tasks_bounds() -> None:
    spec = specs.BoundedArray((3,), np.float64, [-1.0, 0.0, -2.0], [1.1, 1.0, 6.0])
    environment, source = build(spec=spec)
    environment.reset()
    for action in ([-1.0, -1.0, -1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, -5.0, 0.5]):
        environment.step(action)
    expected = np.array([[-1, 0, -2], [0.05, 0.5, 2], [1.1, 1, 6], [1.1, 0, 4]])
    np.testing.assert_allclose(np.stack(source.actions), expected)


@pytest.mark.parametrize("bound", [np.inf, 1e10])
def test_unbounded_actions_are_kept_and_clipped(bound: float) -> None:
    environment, source = build(spec=specs.BoundedArray((2,), np.float64, -bound, bound))
    environment.reset()
    environment.step([0.25, -3.0])
    np.testing.assert_array_equal(source.actions, [[0.25, -1.0]])


@pytest.mark.parametrize("action", [[np.nan, 0.0], [np.inf, 0.0], [0.0], 0.0, [[0.0, 0.0]]])
def test_actions_that_are_not_finite_or_have_another_shape_raise(action: Any) -> None:
    environment, source = build()
    environment.reset()
    with pytest.raises(ValueError, match="finite numbers"):
        environment.step(action)
    assert source.steps == 0


def test_specs_describe_what_comes() -> None:
    environment, _ = build()
    assert environment.action_spec() == specs.BoundedArray((2,), np.float32, -1.0, 1.0, name="action")
    environment.observation_spec()["image"].validate(environment.reset().observation["image"])
    assert isinstance(environment, dm_env.Environment)
