"""Who waits, from who is called."""

from __future__ import annotations

import pytest

from cluster.runtimes.runtime import EVALUATOR, LEARNER, Role
from cluster.waiting import Side, Waiting, in_words, waiting_sides

ONE, OTHER = Role("collector", 0), Role("collector", 1)


@pytest.mark.parametrize(
    ("busy", "sides", "words"),
    [
        ({ONE, LEARNER}, [], "nobody waits"),
        ({OTHER, EVALUATOR}, ["update"], "learner waits for actors"),
        ({LEARNER, EVALUATOR}, ["insert"], "actors wait for the learner"),
        (set(), ["update", "insert"], "learner waits for actors"),
    ],
)
def test_a_side_waits_that_is_not_called(busy: set[Role], sides: list[Side], words: Waiting) -> None:
    assert waiting_sides([ONE, OTHER], busy) == sides
    assert in_words(sides, prefill=False) == words
    assert in_words(sides, prefill=True) == "prefill"


def test_without_collectors_nobody_waits() -> None:
    assert waiting_sides([], set()) == []
