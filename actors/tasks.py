"""Task names. Importing this module opens no OpenGL."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from common.errors import UserError

DREAMER_TASKS = (
    "acrobot_swingup",
    "ball_in_cup_catch",
    "cartpole_balance",
    "cartpole_balance_sparse",
    "cartpole_swingup",
    "cartpole_swingup_sparse",
    "cheetah_run",
    "finger_spin",
    "finger_turn_easy",
    "finger_turn_hard",
    "hopper_hop",
    "hopper_stand",
    "pendulum_swingup",
    "quadruped_run",
    "quadruped_walk",
    "reacher_easy",
    "reacher_hard",
    "walker_run",
    "walker_stand",
    "walker_walk",
)
"""The 20 tasks of Dreamer's experiments."""


def is_factory(task: str) -> bool:
    """Whether the name is `package.module:factory` rather than a DMControl task."""
    return ":" in task


def split_task(task: str, known: Iterable[tuple[str, str]]) -> tuple[str, str]:
    """Domain and task of a `domain_task` name, given all (domain, task) pairs there are.

    Both parts may hold underscores (`ball_in_cup_catch`, `humanoid_CMU_run`), so the whole name is looked up.

    Raises:
        UserError: there is no such task; the line names the nearest ones.
    """
    pairs = {f"{domain}_{name}": (domain, name) for domain, name in known}
    if task in pairs:
        return pairs[task]
    near = difflib.get_close_matches(task, pairs) or [name for name in pairs if name.startswith(task.split("_")[0])]
    hint = f"did you mean {' or '.join(near)}?" if near else f"Dreamer's tasks are {', '.join(DREAMER_TASKS)}"
    raise UserError(f"there is no DMControl task {task!r}; {hint}")
