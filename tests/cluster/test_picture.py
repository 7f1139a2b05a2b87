"""Dashboards as pictures: gaps stay gaps, and units read as Grafana's do."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.monitoring.picture import FORMATS, with_gaps
from cluster.monitoring.prometheus import Line


def test_a_line_is_interrupted_where_samples_are_missing() -> None:
    times = np.array([0.0, 10.0, 20.0, 50.0, 60.0, 100.0])
    line = with_gaps(Line({}, times, np.arange(6.0)), step=10.0)
    np.testing.assert_array_equal(line.times, [0, 10, 20, 35, 50, 60, 80, 100])
    np.testing.assert_array_equal(line.values, [0, 1, 2, np.nan, 3, 4, np.nan, 5])


def test_a_line_without_gaps_stays_as_it_is() -> None:
    line = Line({}, np.array([0.0, 10.0, 20.0]), np.array([1.0, np.nan, 3.0]))
    np.testing.assert_array_equal(with_gaps(line, 10.0).values, line.values)


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("short", 0, "0"),
        ("short", 1234, "1.234 k"),
        ("short", -2.5e6, "-2.5 M"),
        ("bytes", 3 * 2**29, "1.5 GiB"),
        ("bytes", 10, "10 B"),
        ("s", 0.25, "0.25 s"),
        ("percentunit", 0.125, "12.5 %"),
    ],
)
def test_units(unit: str, value: float, text: str) -> None:
    assert FORMATS[unit](value) == text
