"""Counters rise, whatever happens to those who count; what is saved comes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.telemetry.catalogue import METRICS
from cluster.telemetry.numbers import Distribution, Numbers


def test_a_source_that_begins_anew_is_counted_on() -> None:
    numbers = Numbers()
    for count in (3, 10, 2, 2, 5):  # dies after 10
        numbers.told("chunks_inserted_total", count, "replay 0")
    numbers.told("chunks_inserted_total", 4, "replay 1")
    assert numbers.counters["chunks_inserted_total",] == 10 + 5 + 4


@given(st.lists(st.integers(0, 100)))
def test_no_order_of_counts_makes_a_counter_fall(counts: list[int]) -> None:
    numbers, before = Numbers(), 0.0
    for count in counts:
        numbers.told("sequences_sampled_total", count, "replay 0")
        now = numbers.counters["sequences_sampled_total",]
        assert now >= max(before, count)
        before = now


def test_a_counter_cannot_be_lowered() -> None:
    numbers = Numbers()
    with pytest.raises(ValueError, match="cannot fall"):
        numbers.add("episodes_total", -1)
    numbers.at_least("episodes_total", 7)
    numbers.at_least("episodes_total", 3)
    assert numbers.counters["episodes_total",] == 7


@pytest.mark.parametrize(
    "wrong",
    [
        lambda numbers: numbers.add("nobody_knows_total", 1),
        lambda numbers: numbers.add("replay_rows", 1),
        lambda numbers: numbers.set("episodes_total", 1),
        lambda numbers: numbers.set("roles_alive", 1),
        lambda numbers: numbers.set("replay_rows", 1, "collector"),
    ],
)
def test_only_what_the_catalogue_names_can_be_told(wrong: object) -> None:
    with pytest.raises(ValueError, match="is no"):
        wrong(Numbers())  # type: ignore[operator]  # one of the functions above


def test_counters_and_histograms_come_back_from_json_and_gauges_do_not() -> None:
    numbers = Numbers()
    numbers.add("episodes_total", 4)
    numbers.add("cpu_seconds_total", 0.5, "learner")
    numbers.observe("update_seconds", 0.2, 3)
    numbers.observe("update_seconds", 0.21)
    numbers.observe("update_seconds", 1e9)
    numbers.set("replay_rows", 5)
    again = Numbers()
    again.restore(json.loads(json.dumps(numbers.state())))
    assert again.counters == numbers.counters
    assert again.histograms == numbers.histograms
    assert again.gauges == {}
    counts = again.histograms["update_seconds",].counts
    bounds = METRICS["update_seconds"].buckets
    assert counts[bounds.index(0.2)] == 3, "a bound belongs to its bucket"
    assert counts[bounds.index(0.5)] == 1
    assert counts[-1] == 1


def test_what_the_catalogue_no_longer_has_is_left_out() -> None:
    numbers = Numbers()
    numbers.restore(
        {
            "counters": [["gone_total", 5.0], ["role_restarts_total", 5.0], ["episodes_total", 5.0]],
            "histograms": [["update_seconds", [1, 2, 3], 6.0]],
        }
    )
    assert ("gone_total",) not in numbers.counters
    assert ("role_restarts_total",) not in numbers.counters
    assert numbers.counters["episodes_total",] == 5
    assert numbers.histograms["update_seconds",] == Distribution([0] * (len(METRICS["update_seconds"].buckets) + 1))


def test_a_copy_does_not_change() -> None:
    numbers = Numbers()
    copy = numbers.copy()
    numbers.add("episodes_total", 1)
    numbers.observe("update_seconds", 1.0)
    numbers.set("replay_rows", 1)
    assert (copy.counters, copy.histograms, copy.gauges) == (Numbers().counters, Numbers().histograms, {})
