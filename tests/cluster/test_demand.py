"""How many collectors are wanted, and that following it comes to rest."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from cluster.demand import GROW_SECONDS, IDLE_COLLECTORS, SHRINK_SECONDS, STARVED, Change, Demand


def change_of(collectors: int, need: float, demand: Demand | None = None, seconds: float = 1.0) -> Change | None:
    """What is said at last, where `need` collectors would just keep up with the learner."""
    demand, waited = demand or Demand(), 0.0
    held_back = max(0.0, 1 - collectors / need)
    while waited < 2 * SHRINK_SECONDS:
        for part, starved in ((held_back, True), (1 - held_back, False)):
            idle = 0 if starved else max(0.0, collectors - need)
            change = demand.watch(collectors, part * seconds, starved=starved, idle=idle)  # type: ignore[arg-type]  # a mean
            if change is not None:
                return change
        waited += seconds
    return None


@given(st.integers(1, 300), st.floats(0.5, 300.0))
def test_following_it_comes_to_rest_where_nobody_waits_for_long(collectors: int, need: float) -> None:
    changes = 0
    while (change := change_of(collectors, need)) is not None:
        if change.collectors < collectors:
            assert change.collectors >= need, "never do so many leave that the learner waits"
        collectors, changes = change.collectors, changes + 1
    assert changes <= 25
    assert collectors >= math.floor((1 - STARVED) * need)
    assert collectors < need + IDLE_COLLECTORS


@given(st.integers(1, 300), st.floats(0.5, 300.0))
def test_it_never_turns_back(collectors: int, need: float) -> None:
    first = change_of(collectors, need)
    if first is None:
        return
    second = change_of(first.collectors, need)
    assert second is None or (second.collectors > first.collectors) == (first.collectors > collectors)


def test_waiting_that_is_over_within_the_minute_changes_nothing() -> None:
    demand = Demand()
    for _ in range(20):
        assert demand.watch(4, 0.9 * STARVED * GROW_SECONDS, starved=True, idle=0) is None
        assert demand.watch(4, GROW_SECONDS, starved=False, idle=1) is None


def test_growth_is_in_proportion_and_at_most_doubles() -> None:
    assert Demand().watch(10, GROW_SECONDS / 4, starved=False, idle=0) is None
    demand = Demand()
    demand.watch(10, GROW_SECONDS * 0.75, starved=False, idle=0)
    grown = demand.watch(10, GROW_SECONDS * 0.25, starved=True, idle=0)
    assert grown == Change(14, "the learner waited for them 25% of the time")
    assert Demand().watch(10, GROW_SECONDS, starved=True, idle=0) == Change(
        20, "the learner waited for them 100% of the time"
    )


def test_half_of_those_without_work_leave_and_only_after_minutes() -> None:
    demand = Demand()
    assert demand.watch(10, SHRINK_SECONDS * 0.9, starved=False, idle=5) is None
    assert demand.watch(10, SHRINK_SECONDS * 0.1, starved=False, idle=5) == Change(
        8, "5.0 of them had nothing to do on average"
    )
