"""The run's numbers in one place: the progress display, metrics.jsonl, TensorBoard and Prometheus all show these."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cluster.telemetry.catalogue import METRICS

Series = tuple[str, ...]
"""A metric's name, and the values of its labels."""


@dataclass
class Distribution:
    """A histogram: counts a bucket, the last one for what lies above all bounds, and the sum of what was observed."""

    counts: list[int]
    total: float = 0.0


class Numbers:
    """Counters that only rise, histograms and gauges, by series; the catalogue names them.

    Counters and histograms without labels begin at 0, gauges are absent until they are set.
    """

    def __init__(self) -> None:
        self.counters: dict[Series, float] = {
            (name,): 0.0 for name, metric in METRICS.items() if metric.kind == "counter" and not metric.labels
        }
        self.histograms: dict[Series, Distribution] = {
            (name,): Distribution([0] * (len(metric.buckets) + 1))
            for name, metric in METRICS.items()
            if metric.kind == "histogram"
        }
        self.gauges: dict[Series, float] = {}
        self._told: dict[tuple[Series, str], float] = {}

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Raises a counter by an amount that is not negative."""
        series = _series(name, labels, "counter")
        if amount < 0:
            raise ValueError(f"{name} cannot fall by {-amount}")
        self.counters[series] = self.counters.get(series, 0.0) + amount

    def told(self, name: str, count: float, source: str, *labels: str) -> None:
        """Raises a counter by what a source has counted since it last told; one that tells of less began anew."""
        series = _series(name, labels, "counter")
        before = self._told.get((series, source), 0.0)
        self._told[series, source] = count
        self.add(name, count - before if count >= before else count, *labels)

    def at_least(self, name: str, value: float) -> None:
        """Raises a counter to a value that is known to have been reached."""
        self.counters[name,] = max(self.counters[name,], value)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Sets a gauge."""
        self.gauges[_series(name, labels, "gauge")] = value

    def forget(self, name: str, *labels: str) -> None:
        """What a gauge was of is gone."""
        self.gauges.pop(_series(name, labels, "gauge"), None)

    def observe(self, name: str, value: float, times: int = 1) -> None:
        """Adds a value to a histogram, as often as it was observed."""
        distribution = self.histograms[_series(name, (), "histogram")]
        distribution.counts[bisect_left(METRICS[name].buckets, value)] += times
        distribution.total += value * times

    def copy(self) -> Self:
        """The numbers as they are now."""
        numbers = type(self)()
        numbers.counters = dict(self.counters)
        numbers.histograms = {
            series: Distribution(list(held.counts), held.total) for series, held in self.histograms.items()
        }
        numbers.gauges = dict(self.gauges)
        return numbers

    def state(self) -> dict[str, Any]:
        """What never goes back, as JSON values."""
        return {
            "counters": [[*series, value] for series, value in self.counters.items()],
            "histograms": [[*series, held.counts, held.total] for series, held in self.histograms.items()],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` returned; what the catalogue no longer has, or has otherwise, is left out."""
        for *series, value in state.get("counters", ()):
            if _is(series, "counter"):
                self.counters[tuple(series)] = value
        for *series, counts, total in state.get("histograms", ()):
            if _is(series, "histogram") and len(counts) == len(METRICS[series[0]].buckets) + 1:
                self.histograms[tuple(series)] = Distribution(counts, total)


def _series(name: str, labels: tuple[str, ...], kind: str) -> Series:
    series = (name, *labels)
    if not _is(series, kind):
        raise ValueError(f"{series} is no {kind} of the catalogue")
    return series


def _is(series: Series | list[str], kind: str) -> bool:
    metric = METRICS.get(series[0])
    return metric is not None and metric.kind == kind and len(metric.labels) == len(series) - 1
