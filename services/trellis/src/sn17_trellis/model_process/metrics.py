"""Metrics of lives, swaps and the room for them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sn17_contract.http import Code
from sn17_contract.metrics import Metric as MetricName
from sn17_contract.metrics import RerunCause, SwapPhase
from sn17_contract.worker import RecycleHow, RecycleOutcome

from sn17_trellis.model_process.lives import Lives

_PHASE_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 180)


class ModelMetrics:
    """Counters; all of them stay monotonic over lives."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.swaps = Counter(
            MetricName.SWAPS,
            "Recycles of the model process by what was asked and how it ended.",
            ["how", "outcome"],
            registry=registry,
        )
        for how in RecycleHow:
            for outcome in RecycleOutcome:
                self.swaps.labels(how.value, outcome.value)
        self.swaps.labels(RecycleHow.SWAP.value, Code.DEVICE_BUSY.value)
        self.seconds = Histogram(
            MetricName.SWAP_SECONDS,
            "Seconds of a swap or replacement by phase.",
            ["phase"],
            buckets=_PHASE_SECONDS,
            registry=registry,
        )
        for phase in SwapPhase:
            self.seconds.labels(phase.value)
        self.device_seconds = Histogram(
            MetricName.SWAP_DEVICE_SECONDS,
            "Seconds that a swap held the device for warm-up and canary.",
            buckets=_PHASE_SECONDS,
            registry=registry,
        )
        self.reruns = Counter(
            MetricName.JOBS_RERUN,
            "Jobs that ran again in the next life.",
            ["cause"],
            registry=registry,
        )
        for cause in RerunCause:
            self.reruns.labels(cause.value)
        self.start_failures = Counter(
            MetricName.MODEL_START_FAILURES,
            "Model processes that did not get ready where none served.",
            registry=registry,
        )
        self.ends = Counter(MetricName.MODEL_ENDS, "Ends of model processes.", ["how"], registry=registry)
        for how_ended in ("asked", "killed", "crashed"):
            self.ends.labels(how_ended)


class LivesCollector(Collector):
    """Which life serves, how many processes there are, and what a swap needs: read at each scrape."""

    def __init__(self, lives: Lives, boot_id: str) -> None:
        self._lives = lives
        self._boot_id = boot_id

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        lives = self._lives
        info = GaugeMetricFamily(
            MetricName.LIFE_INFO, "The model process that serves.", labels=["life_id", "boot_id"]
        )
        info.add_metric([lives.life_id, self._boot_id], 1.0)
        yield info
        yield GaugeMetricFamily(
            MetricName.MODEL_PROCESSES, "Model processes alive; 2 during a swap.", lives.processes
        )
        yield GaugeMetricFamily(
            MetricName.MODEL_FAILING_STARTS,
            "Starts of a model process that failed in a row; 0 while one serves.",
            lives.failed_starts,
        )
        memory = GaugeMetricFamily(
            MetricName.PROCESS_MEMORY, "Anonymous and shared memory by process.", labels=["process"]
        )
        for name, size in lives.memory().items():
            memory.add_metric([name], float(size))
        yield memory
        terms = lives.terms()
        if terms is None:
            return
        yield GaugeMetricFamily(
            MetricName.SWAP_THRESHOLD_RATIO,
            "Share of the limit at which a swap should begin.",
            terms.due_ratio,
        )
        found = GaugeMetricFamily(MetricName.SWAP_TERM, "Terms of the swap threshold.", labels=["term"])
        for name, size in terms.by_name().items():
            found.add_metric([name], float(size))
        yield found
        room = lives.room()
        if room is not None:
            yield GaugeMetricFamily(
                MetricName.SWAP_ROOM,
                "1 where a swap fits now and costs less than a replacement, else 0.",
                float(room),
            )
