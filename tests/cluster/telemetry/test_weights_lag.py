"""How far the collector most behind acts behind the learner."""

from __future__ import annotations

from cluster.weights import Lag, Publications, Weights


def published(*updates: int) -> Publications:
    """Versions 1, 2, …, published at 10, 20, … seconds."""
    publications = Publications()
    for number, count in enumerate(updates, start=1):
        publications.add(Weights(number, count, None, 10.0 * number))
    return publications


def test_nobody_lags_behind_what_was_not_published() -> None:
    assert Publications().lag([0, 0], 0, 5.0) == Lag(0, 0.0)
    assert published(0).lag([0, 0], 0, 15.0) == Lag(0, 0.0), "untrained weights are not worth taking"


def test_updates_and_seconds_are_those_of_the_collector_most_behind() -> None:
    publications = published(0, 100, 200, 300)
    assert publications.lag([4, 2, 3], 350, 45.0) == Lag(350 - 100, 45.0 - 30.0)
    assert publications.lag([4, 4, 4], 360, 46.0) == Lag(60, 0.0)


def test_a_collector_that_comes_back_without_weights_lags_behind_the_oldest_known() -> None:
    publications = published(0, 100, 200)
    assert publications.lag([3], 200, 31.0) == Lag(0, 0.0)
    assert publications.lag([3, 0], 230, 33.0) == Lag(30, 3.0)


def test_a_learner_that_was_set_back_is_not_ahead() -> None:
    assert published(0, 100, 200).lag([3], 150, 40.0) == Lag(0, 0.0)
