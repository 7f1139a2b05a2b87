"""The run's public numbers as prometheus-client wants them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from cluster.telemetry.catalogue import METRICS, PREFIX
from cluster.telemetry.numbers import Distribution, Numbers, Series
from cluster.telemetry.telemetry import Telemetry


class PublicNumbers(Collector):
    """Gives what is public at the moment of a scrape."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry

    def collect(self) -> Iterator[Metric]:
        """Every metric that has a series, in the catalogue's order."""
        return families(self.telemetry.public)


def registry(telemetry: Telemetry) -> CollectorRegistry:
    """A registry of the run's own: nothing that a library registers globally is in it."""
    own = CollectorRegistry()
    own.register(PublicNumbers(telemetry))
    return own


def families(numbers: Numbers) -> Iterator[Metric]:
    """The numbers by metric."""
    values: dict[str, list[tuple[Series, float | Distribution]]] = defaultdict(list)
    for part in (numbers.counters, numbers.histograms, numbers.gauges):
        for series, value in part.items():
            values[series[0]].append((series[1:], value))
    for name, metric in METRICS.items():
        if name not in values:
            continue
        family = _FAMILIES[metric.kind](PREFIX + name, metric.help, labels=metric.labels)
        for labels, value in values[name]:
            if isinstance(value, Distribution):
                bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
                family.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
            else:
                family.add_metric(labels, value)
        yield family


_FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
