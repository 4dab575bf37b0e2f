"""The worker's own metrics (names in ``sn17_contract``)."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sn17_contract.metrics import (
    CANARY_DRIFT_THRESHOLD,
    RECENT_WINDOW_SECONDS,
    DegradedReason,
    GenerationKind,
    GenerationOutcome,
)
from sn17_contract.metrics import Metric as MetricName

from sn17_trellis.quality import Finding

_GAUSSIAN_BUCKETS = (7e3, 25e3, 5e4, 1e5, 15e4, 2e5, 25e4, 3e5, 35e4, 4e5, 5e5, 7e5, 1e6, 14e5)
_SECOND_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 35, 45, 60, 120)


@dataclass(frozen=True, slots=True)
class Recent:
    """Task generations of this incarnation within the window; the first two None without any."""

    gaussians_mean: float | None
    seconds_p50: float | None
    count: int


class RecentTasks:
    """Successful task generations of the last ``RECENT_WINDOW_SECONDS``, this incarnation only."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._entries: deque[tuple[float, int, float]] = deque()

    def add(self, gaussians: int, seconds: float) -> None:
        with self._lock:
            self._entries.append((self._monotonic(), gaussians, seconds))

    def new_life(self) -> None:
        """Forget what another model process made."""
        with self._lock:
            self._entries.clear()

    def read(self) -> Recent:
        with self._lock:
            oldest = self._monotonic() - RECENT_WINDOW_SECONDS
            while self._entries and self._entries[0][0] < oldest:
                self._entries.popleft()
            entries = list(self._entries)
        if not entries:
            return Recent(None, None, 0)
        return Recent(
            statistics.fmean(gaussians for _, gaussians, _ in entries),
            statistics.median(seconds for _, _, seconds in entries),
            len(entries),
        )


class WorkerMetrics:
    """Counters are incremented by the runner; what is a state is read at each scrape."""

    def __init__(
        self,
        registry: CollectorRegistry,
        recent: RecentTasks,
        *,
        gpu_memory: Callable[[], Mapping[str, int]],
        self_recycles: Callable[[], int],
        jobs_in_flight: Callable[[], int],
        failing: Callable[[], bool],
    ) -> None:
        self.generations = Counter(
            MetricName.GENERATIONS, "Generations by end.", ["kind", "outcome"], registry=registry
        )
        for kind in GenerationKind:
            for outcome in GenerationOutcome:
                self.generations.labels(kind.value, outcome.value)
        self.gaussians = Histogram(
            MetricName.GENERATION_GAUSSIANS,
            "Gaussians of an asset.",
            ["kind"],
            buckets=_GAUSSIAN_BUCKETS,
            registry=registry,
        )
        self.duration = Histogram(
            MetricName.GENERATION_DURATION,
            "Seconds by stage; total is what a caller waits for.",
            ["kind", "stage"],
            buckets=_SECOND_BUCKETS,
            registry=registry,
        )
        self.jobs = Histogram(
            MetricName.JOB_SECONDS,
            "Seconds of tasks, by whether a second model process lived meanwhile.",
            ["swap"],
            buckets=_SECOND_BUCKETS,
            registry=registry,
        )
        for swap in ("during", "outside"):
            self.jobs.labels(swap)
        self.last_progress = Gauge(
            MetricName.LAST_PROGRESS, "When a job last made a step.", registry=registry
        )
        self.last_generation = Gauge(
            MetricName.LAST_GENERATION, "When an asset was last finished.", registry=registry
        )
        self.gpu_errors = Counter(
            MetricName.GPU_ERRORS, "Fatal errors of the device.", ["kind"], registry=registry
        )
        self.lanes = Counter(
            MetricName.GENERATION_LANES, "Tasks by the lane they were made in.", ["lane"], registry=registry
        )
        for lane in ("exact", "fast"):
            self.lanes.labels(lane)
        self.findings = Counter(
            MetricName.OUTPUT_FINDINGS,
            "What the check of outputs found.",
            ["finding"],
            registry=registry,
        )
        for finding in Finding:
            self.findings.labels(finding.value)
        self.canary_drift: float | None = None
        self.canary_output: str | None = None
        """What was run and what came of it, as digests: equal workers give the same."""
        self.degraded: DegradedReason | None = None
        self.model: str | None = None
        """Checkpoint and hardware in one line, once they are known."""
        registry.register(_States(self, recent, gpu_memory, self_recycles, jobs_in_flight, failing))

    def count(self, kind: GenerationKind, outcome: GenerationOutcome) -> None:
        self.generations.labels(kind.value, outcome.value).inc()

    def made(self, lane: str, gaussians: int, seconds: float, *, in_swap: bool) -> None:
        """A task's asset is finished."""
        self.jobs.labels("during" if in_swap else "outside").observe(seconds)
        self.lanes.labels(lane).inc()
        self.gaussians.labels(GenerationKind.TASK.value).observe(gaussians)
        self.count(GenerationKind.TASK, GenerationOutcome.OK)


class _States(Collector):
    """Without a value there is no series: no data is not bad data."""

    def __init__(
        self,
        metrics: WorkerMetrics,
        recent: RecentTasks,
        gpu_memory: Callable[[], Mapping[str, int]],
        self_recycles: Callable[[], int],
        jobs_in_flight: Callable[[], int],
        failing: Callable[[], bool],
    ) -> None:
        self._failing = failing
        self._metrics = metrics
        self._recent = recent
        self._gpu_memory = gpu_memory
        self._self_recycles = self_recycles
        self._jobs_in_flight = jobs_in_flight

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        recent = self._recent.read()
        gauges = (
            (MetricName.RECENT_GAUSSIANS_MEAN, "Mean gaussians of recent tasks.", recent.gaussians_mean),
            (MetricName.RECENT_GENERATION_P50, "Median seconds of recent tasks.", recent.seconds_p50),
            (MetricName.RECENT_GENERATIONS, "How many recent tasks there are.", float(recent.count)),
            (
                MetricName.JOBS_IN_FLIGHT,
                "Jobs being generated or encoded.",
                float(self._jobs_in_flight()),
            ),
            (
                MetricName.CANARY_DRIFT,
                f"Last canary against the first; above {CANARY_DRIFT_THRESHOLD:g} is drift.",
                self._metrics.canary_drift,
            ),
        )
        for name, text, value in gauges:
            if value is not None:
                yield GaugeMetricFamily(name, text, value)
        if self._metrics.model is not None:
            model = GaugeMetricFamily(
                MetricName.MODEL_INFO, "Checkpoint and hardware that make assets.", labels=["model"]
            )
            model.add_metric([self._metrics.model], 1.0)
            yield model
        if self._metrics.canary_output is not None:
            canary = GaugeMetricFamily(
                MetricName.CANARY_INFO, "Digests of the checkpoint and of its last canary.", labels=["output"]
            )
            canary.add_metric([self._metrics.canary_output], 1.0)
            yield canary
        reasons = [self._metrics.degraded] if self._metrics.degraded is not None else []
        if self._failing():
            reasons.append(DegradedReason.MODEL_FAILING)
        if reasons:
            degraded = GaugeMetricFamily(
                MetricName.DEGRADED, "The worker calls itself degraded.", labels=["reason"]
            )
            for reason in reasons:
                degraded.add_metric([reason.value], 1.0)
            yield degraded
        recycles = Metric(MetricName.SELF_RECYCLES, "Ends by the worker's own guard.", "counter")
        recycles.add_sample(f"{MetricName.SELF_RECYCLES.value}_total", {}, float(self._self_recycles()))
        yield recycles
        memory = GaugeMetricFamily(MetricName.GPU_MEMORY, "Device memory.", labels=["kind"])
        for kind, size in self._gpu_memory().items():
            memory.add_metric([kind], float(size))
        yield memory
