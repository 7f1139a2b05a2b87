"""The suite's own task separates agents that look at the image from those that do not."""

from __future__ import annotations

import numpy as np
import pytest

from tests import tiny


def test_best_return_is_that_of_going_straight_to_the_target() -> None:
    assert tiny.mean_return(tiny.toward_target, episodes=300) == pytest.approx(tiny.BEST_RETURN, abs=0.3)


def test_random_return_is_that_of_uniform_actions() -> None:
    random = np.random.default_rng(1)
    measured = tiny.mean_return(lambda _: random.uniform(-1.0, 1.0, 1), episodes=300)
    assert measured == pytest.approx(tiny.RANDOM_RETURN, abs=0.8)


@pytest.mark.parametrize("action", [-1.0, -0.3, 0.0, 0.3, 1.0])
def test_no_constant_action_comes_near_the_best_return(action: float) -> None:
    assert tiny.mean_return(lambda _: np.array([action]), episodes=200) < 0.55 * tiny.BEST_RETURN


def test_keeping_to_the_middle_does_not_come_near_the_best_return() -> None:
    measured = tiny.mean_return(lambda env: np.clip([-env.x / tiny.SPEED], -1.0, 1.0), episodes=300)
    assert measured < 0.55 * tiny.BEST_RETURN


def test_image_shows_square_and_target() -> None:
    environment = tiny.make(0)
    environment.reset()
    environment.x, environment.target = -1.0, 0.7
    left = environment.image()
    environment.x = 1.0
    right = environment.image()
    environment.target = -0.7
    other = environment.image()
    assert (left != right).any()
    assert (right != other).any()


def test_same_seed_gives_same_episodes() -> None:
    first, second = tiny.make(3), tiny.make(3)
    for _ in range(3):
        assert np.array_equal(first.reset().observation, second.reset().observation)
