"""kill -9 of everybody, every ten seconds; `tests.system.chaos` says what is held against what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import chaos


def assert_unharmed(report: chaos.Report) -> None:
    print(report.table())
    assert report.problems == []
    assert report.kills, "on a busy machine somebody is long coming back, but the first is killed at once"
    assert report.looks > 5


@pytest.mark.slow
def test_a_run_whose_processes_are_killed_for_a_minute_and_a_half_loses_and_doubles_nothing(tmp_path: Path) -> None:
    assert_unharmed(chaos.run("redis", minutes=1.5, seed=3, folder=tmp_path))


@pytest.mark.soak
@pytest.mark.parametrize("store", sorted(chaos.VICTIMS))
def test_a_run_whose_processes_are_killed_for_ten_minutes_loses_and_doubles_nothing(store: str, tmp_path: Path) -> None:
    assert_unharmed(chaos.run(store, minutes=10, seed=1, folder=tmp_path))
