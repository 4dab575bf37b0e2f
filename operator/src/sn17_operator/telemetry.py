"""The operator's own metrics. Series of workers and reasons that are gone are removed at the next tick."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from sn17_contract.metrics import Metric

from sn17_operator.core.model import Outcome, RuleName, Trial, Worker
from sn17_operator.core.plan import HOLDS, Reason
from sn17_operator.status.resource import State
from sn17_operator.status.view import Ratios

QUERY_FAILURES: Final = (
    "timeout", "unreachable", "certificate", "credentials", "bad_answer", "too_large", "warnings", "http_401",
    "http_403", "http_503",
)  # fmt: skip
"""Reasons that a query without a usable answer most often has; others begin when they first happen."""


class Telemetry:
    """Counts per tick; gauges are swapped as a whole so that a scrape never sees half a tick."""

    def __init__(self, registry: CollectorRegistry, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._workers = Gauge(Metric.WORKERS, "Workers by state.", ["state"], registry=registry)
        self._actions = Counter(
            Metric.ACTIONS, "Acts on workers.", ["action", "reason", "outcome"], registry=registry
        )
        self._blocked = Counter(
            Metric.BLOCKED,
            "Ticks at which an action on a worker was held back.",
            ["reason"],
            registry=registry,
        )
        # A counter that begins at 0 shows its first event to `increase`.
        for reason in HOLDS:
            self._blocked.labels(reason)
        self._duration = Histogram(
            Metric.TICK_DURATION,
            "Seconds that a tick took.",
            registry=registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40),
        )
        self._errors = Counter(
            Metric.PROMETHEUS_ERRORS, "Queries without a usable answer.", ["reason"], registry=registry
        )
        for failure in QUERY_FAILURES:
            self._errors.labels(failure)
        self._api_errors = Counter(
            Metric.API_ERRORS,
            "Calls of the API server that failed, other than by a conflict.",
            ["reason"],
            registry=registry,
        )
        self._success = Gauge(
            Metric.SUCCESS_RATIO, "Accepted tasks of all but skipped ones.", ["window"], registry=registry
        )
        self._breaches = Gauge(
            Metric.RULE_BREACHES,
            "Workers that breach a rule, also one that is observed only.",
            ["rule"],
            registry=registry,
        )
        self._suspects = Gauge(
            Metric.SUSPECT_DEVICES,
            "Devices on which remediations failed in a row.",
            ["uuid", "node"],
            registry=registry,
        )
        self._last_tick = monotonic()
        age = Gauge(Metric.TICK_AGE, "Seconds since the last tick that was finished.", registry=registry)
        age.set_function(lambda: monotonic() - self._last_tick)
        self._states: Tally[State] = Tally()
        self._ratios: dict[str, float] = {}
        self._rules: Tally[str] = Tally()
        self._devices: set[tuple[str, str]] = set()
        self.end()

    def begin(self) -> None:
        self._states.clear()
        self._ratios.clear()
        self._rules.clear()
        self._devices.clear()

    def fleet(self, states: Sequence[State], blocked: Sequence[Reason], ratios: Mapping[str, Ratios]) -> None:
        self._states.update(states)
        for reason in blocked:
            self._blocked.labels(reason).inc()
        for window, ratio in ratios.items():
            if ratio.success is not None:
                self._ratios[window] = ratio.success

    def judged(self, workers: Iterable[Worker], suspects: Iterable[Trial]) -> None:
        """What the rules found in a fleet, and the devices that are suspect."""
        self._rules.update(f.rule for w in workers for f in w.verdict.findings if f.outcome is Outcome.BREACH)
        self._devices.update((trial.uuid, trial.node or "") for trial in suspects)

    def end(self) -> None:
        for rule in RuleName:
            self._breaches.labels(rule).set(self._rules[rule])
        self._suspects.clear()
        for uuid, node in self._devices:
            self._suspects.labels(uuid, node).set(1)
        for state in State:
            self._workers.labels(state).set(self._states[state])
        self._success.clear()
        for window, value in self._ratios.items():
            self._success.labels(window).set(value)

    def ticked(self, seconds: float) -> None:
        self._duration.observe(seconds)
        self._last_tick = self._monotonic()

    def action(self, action: str, reason: str, outcome: str) -> None:
        self._actions.labels(str(action), str(reason), outcome).inc()

    def api_error(self, reason: str) -> None:
        self._api_errors.labels(reason).inc()

    def prometheus_error(self, reason: str) -> None:
        self._errors.labels(reason).inc()
