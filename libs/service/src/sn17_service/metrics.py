"""Metrics that every service has; all gauges are computed when scraped."""

from __future__ import annotations

from collections.abc import Iterator

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sn17_contract.http import Code, LeaseOwner
from sn17_contract.metrics import Metric as MetricName

from sn17_service.state import ServiceState


def new_registry() -> CollectorRegistry:
    """A registry with the collectors of the process and of Python, and no ``_created`` series."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def refusals(registry: CollectorRegistry) -> Counter:
    counter = Counter(MetricName.REFUSALS, "Requests answered with an error.", ["code"], registry=registry)
    for code in Code:
        counter.labels(code.value)
    return counter


class ServiceCollector(Collector):
    """Memory, thresholds, drain leases, readiness and identity, read at each scrape."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        state = self._state
        yield from self._memory()
        held = {lease.by for lease in state.drain.leases()}
        draining = GaugeMetricFamily(
            MetricName.DRAINING, "Out of service on behalf of this owner.", labels=["by"]
        )
        for owner in LeaseOwner:
            draining.add_metric([owner.value], float(owner in held))
        yield draining
        ready = not state.readiness.reasons()
        yield GaugeMetricFamily(MetricName.READY, "Takes work.", value=float(ready))
        info = GaugeMetricFamily(
            MetricName.BOOT_INFO, "This incarnation.", labels=["boot_id", "service", "version"]
        )
        info.add_metric([state.boot_id, state.name, state.version], 1.0)
        yield info

    def _memory(self) -> Iterator[Metric]:
        reading = self._state.read_memory()
        if reading is not None:
            yield GaugeMetricFamily(
                MetricName.MEMORY_UNRECLAIMABLE,
                "Memory that cannot be reclaimed.",
                reading.unreclaimable,
            )
            yield GaugeMetricFamily(
                MetricName.MEMORY_WORKING_SET, "Usage without inactive file pages.", reading.working_set
            )
            components = GaugeMetricFamily(
                MetricName.MEMORY_COMPONENT, "Parts of the unreclaimable memory.", labels=["component"]
            )
            for name, value in reading.components.items():
                components.add_metric([name], value)
            yield components
            if reading.limit is not None:
                yield GaugeMetricFamily(MetricName.MEMORY_LIMIT, "Memory limit.", reading.limit)
        thresholds = GaugeMetricFamily(
            MetricName.MEMORY_MARK_RATIO, "Thresholds of the guard as shares of the limit.", labels=["mark"]
        )
        for name, ratio in self._state.memory_thresholds.items():
            thresholds.add_metric([name], ratio)
        yield thresholds
