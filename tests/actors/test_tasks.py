"""Task names and the lines for those that are none."""

from __future__ import annotations

import pytest
from dm_control import suite

from actors.tasks import DREAMER_TASKS, is_factory, split_task
from common.errors import UserError


@pytest.mark.parametrize(
    ("task", "pair"),
    [
        ("ball_in_cup_catch", ("ball_in_cup", "catch")),
        ("point_mass_easy", ("point_mass", "easy")),
        ("quadruped_run", ("quadruped", "run")),
        ("humanoid_run", ("humanoid", "run")),
        ("humanoid_CMU_run", ("humanoid_CMU", "run")),
        ("humanoid_run_pure_state", ("humanoid", "run_pure_state")),
        ("cartpole_swingup_sparse", ("cartpole", "swingup_sparse")),
    ],
)
def test_domain_and_task_may_both_hold_underscores(task: str, pair: tuple[str, str]) -> None:
    assert split_task(task, suite.ALL_TASKS) == pair


def test_every_suite_task_has_a_name_of_its_own() -> None:
    names = [f"{domain}_{task}" for domain, task in suite.ALL_TASKS]
    assert [split_task(name, suite.ALL_TASKS) for name in names] == list(suite.ALL_TASKS)


def test_dreamers_twenty_tasks_are_in_the_suite() -> None:
    assert len(set(DREAMER_TASKS)) == 20
    assert all(split_task(task, suite.ALL_TASKS) for task in DREAMER_TASKS)


@pytest.mark.parametrize(
    ("task", "near"),
    [("walker_wolk", "walker_walk"), ("cup_catch", "ball_in_cup_catch"), ("cheetah_fly", "cheetah_run")],
)
def test_unknown_task_names_the_nearest(task: str, near: str) -> None:
    with pytest.raises(UserError, match=f"no DMControl task '{task}'; did you mean .*{near}") as error:
        split_task(task, suite.ALL_TASKS)
    assert "\n" not in str(error.value)


def test_task_like_nothing_lists_dreamers() -> None:
    with pytest.raises(UserError, match="Dreamer's tasks are acrobot_swingup, "):
        split_task("zzzz", suite.ALL_TASKS)


def test_colon_makes_a_factory() -> None:
    assert is_factory("package.module:factory")
    assert not is_factory("walker_walk")
