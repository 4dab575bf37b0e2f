"""Counters and histograms as things happen; the queue as the last clean-up saw it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from sn17_contract.gateway import ORIGINS, Route
from sn17_contract.metrics import GatewayOutcome, Metric

from sn17_gateway.storage.store import Snapshot

_ROUTES = frozenset(route.value for route in Route)
_WAIT = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_GENERATION = (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 90, 120, 180, 300, 600)


class GatewayMetrics:
    """``outcome``: success, failure (the worker said so), refused (no asset), timeout (life over)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tasks = Counter(Metric.GATEWAY_TASKS, "Tasks taken in.", ["origin", "kind"], registry=registry)
        self.results = Counter(Metric.GATEWAY_RESULTS, "Results by outcome.", ["outcome"], registry=registry)
        self.errors = Counter(
            Metric.GATEWAY_ERRORS, "Refusals by route and status.", ["route", "status"], registry=registry
        )
        self.deliveries = Counter(Metric.GATEWAY_DELIVERIES, "Tasks handed to workers.", registry=registry)
        self.returned = Counter(
            Metric.GATEWAY_RETURNED, "Tasks handed out again after a lease ended.", registry=registry
        )
        self.wait = Histogram(
            Metric.GATEWAY_WAIT, "From add_task to a worker.", buckets=_WAIT, registry=registry
        )
        self.generation = Histogram(
            Metric.GATEWAY_GENERATION, "From a worker's pull to its success.",
            buckets=_GENERATION, registry=registry,
        )  # fmt: skip
        for origin in ORIGINS:
            for kind in ("text", "image"):
                self.tasks.labels(origin, kind)
        for outcome in GatewayOutcome:
            self.results.labels(outcome.value)
        for route in Route:
            for status in ("500", "503"):
                self.errors.labels(route.value, status)

    def refused(self, path: str, status: int) -> None:
        """Count a refusal; paths that are no route count together."""
        route = path if path in _ROUTES else "other"
        self.errors.labels(route, str(status)).inc()


class QueueCollector(Collector):
    """Gauges; none before the first reading, since no data is not an empty queue."""

    def __init__(self, read: Callable[[], Snapshot | None], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock

    def describe(self) -> Iterable[Family]:
        return []

    def collect(self) -> Iterable[Family]:
        snapshot = self._read()
        if snapshot is None:
            return
        tasks = GaugeMetricFamily(Metric.GATEWAY_OPEN_TASKS, "Tasks without an end.", labels=["state"])
        tasks.add_metric(["waiting"], snapshot.waiting)
        tasks.add_metric(["in_progress"], snapshot.in_progress)
        yield tasks
        age = 0.0 if snapshot.oldest is None else max(0.0, self._clock() - snapshot.oldest)
        yield GaugeMetricFamily(Metric.GATEWAY_OLDEST_WAIT, "Age of the oldest waiting task.", age)
