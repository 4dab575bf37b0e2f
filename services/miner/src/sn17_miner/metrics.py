"""The miner's metrics of the shared contract: counters as things happen, gauges when scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from sn17_contract.metrics import Metric
from sn17_contract.tasks import VALIDATORS, Lane, Outcome, TaskKind

_SECONDS = (0.5, 1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 90, 120, 300, 600)
_IDLE = (0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300)
_SCORES = tuple(n / 20 for n in range(1, 21))


def label(hotkey: str) -> str:
    """A validator's name in metrics."""
    return hotkey[:8]


class MinerMetrics:
    """Counters and histograms. ``door`` is "validators" or a gateway's name in the settings; a gateway's
    tasks have no validator.
    """

    def __init__(self, registry: CollectorRegistry, doors: Iterable[str] = (VALIDATORS,)) -> None:
        self.tasks = Counter(
            Metric.TASKS, "Tasks that ended.", ["door", "validator", "kind", "outcome"], registry=registry
        )
        self.pulled = Counter(
            Metric.TASKS_PULLED, "Tasks pulled.", ["door", "validator", "kind"], registry=registry
        )
        self.given_up = Counter(Metric.GIVEN_UP, "Tasks given up.", ["door", "reason"], registry=registry)
        self.lanes = Counter(
            Metric.TASK_LANES,
            "Generations of tasks by the lane that the worker made them in.",
            ["door", "lane"],
            registry=registry,
        )
        self.polls = Counter(
            Metric.GATEWAY_POLLS,
            "Calls for tasks to nodes of gateways.",
            ["door", "answer"],
            registry=registry,
        )
        self.decisions = Counter(
            Metric.DECISIONS,
            "Decisions about tasks, as the journal explains them.",
            ["decision"],
            registry=registry,
        )
        self.enhanced = Counter(
            Metric.TASKS_ENHANCED,
            "Tasks that ended, by what was done to the prompt.",
            ["validator", "enhancement", "outcome"],
            registry=registry,
        )
        self.score = Histogram(
            Metric.TASK_SCORE, "Scores of accepted tasks.", ["validator"], buckets=_SCORES, registry=registry
        )
        self.delivery = Histogram(
            Metric.DELIVERY, "Pull to verdict.", ["door", "validator"], buckets=_SECONDS, registry=registry
        )
        self.idle = Histogram(
            Metric.COOLDOWN_IDLE,
            "End of a cooldown to the next pull, while a worker was free.",
            ["validator"],
            buckets=_IDLE,
            registry=registry,
        )
        self.violations = Counter(
            Metric.COOLDOWN_VIOLATIONS, "Pulls that came too early.", ["validator"], registry=registry
        )
        self.overhead = Histogram(
            Metric.TASK_OVERHEAD,
            "Pull to verdict without the generation and the validator's own time.",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
            registry=registry,
        )
        self.errors = Counter(
            Metric.INTERNAL_ERRORS,
            "Exceptions that should not happen, survived.",
            ["where"],
            registry=registry,
        )
        for door in doors:
            for lane in Lane:
                self.lanes.labels(door, lane.value)
            if door != VALIDATORS:
                self._zero(door, "")
        for outcome in Outcome:
            self.decisions.labels(f"outcome:{outcome.value}")

    def known(self, hotkeys: Iterable[str]) -> None:
        """Counters of these validators begin at 0: without a first series an alert on "none" never fires,
        and ``increase`` does not see the event that a series begins with.
        """
        for hotkey in hotkeys:
            self._zero(VALIDATORS, label(hotkey))
            self.violations.labels(label(hotkey))

    def _zero(self, door: str, validator: str) -> None:
        for kind in TaskKind:
            self.pulled.labels(door, validator, kind.value)
            for outcome in Outcome:
                self.tasks.labels(door, validator, kind.value, outcome.value)


class Gauges(Collector):
    """Gauges from ``read``, which returns (name, help, labels, value) rows and must not block."""

    def __init__(self, read: Callable[[], Iterable[tuple[str, str, dict[str, str], float]]]) -> None:
        self._read = read

    def describe(self) -> list[Family]:
        return []

    def collect(self) -> Iterable[Family]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, text, labels, value in self._read():
            family = families.get(name)
            if family is None:
                family = families[name] = GaugeMetricFamily(name, text, labels=sorted(labels))
            family.add_metric([labels[key] for key in sorted(labels)], value)
        return families.values()
