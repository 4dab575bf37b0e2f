"""What a rule may look at, and what all rules share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from sn17_operator.api import Spec
from sn17_operator.core.model import Finding, Outcome, Pod, RuleClass, RuleName
from sn17_operator.core.readings import Evidence, Gap, Monitoring, Reading, Series, Signal

GRAVITY = (
    RuleName.MEMORY_EMERGENCY,
    RuleName.DEVICE_UNHEALTHY,
    RuleName.GPU_ERROR,
    RuleName.MODEL_FAILING,
    RuleName.UNREACHABLE,
    RuleName.STALLED,
    RuleName.MEMORY_HIGH,
    RuleName.POD_MEMORY_HIGH,
    RuleName.CANARY_DRIFT,
    RuleName.CANARY_DISAGREES,
    RuleName.GAUSSIANS_LOW,
    RuleName.SLOW,
    RuleName.SWAP_DUE,
)
"""Gravest first: which of several breaches is acted on."""


@dataclass(frozen=True, slots=True)
class Context:
    """All that a rule may look at."""

    spec: Spec
    pod: Pod
    evidence: Evidence
    monitoring: Monitoring
    disagrees: str | None = None
    """Why the worker's canary is not what its peers make; None where it is, or where nobody can tell."""

    def reading(self, signal: Signal) -> Reading:
        """The signal's samples if the newest is fresh and a number, else why not."""
        reading = self.evidence.reading(signal)
        if isinstance(reading, Gap):
            return reading
        if self.monitoring.at - reading.at > self.monitoring.stale_after:
            return Gap.STALE
        return Gap.NOT_A_NUMBER if math.isnan(reading.value) else reading

    def finding(
        self,
        rule: RuleName,
        rule_class: RuleClass,
        outcome: Outcome,
        message: str,
        *,
        value: float | None = None,
        threshold: float | None = None,
        at: float | None = None,
        dwell_left: float = 0.0,
        signals: tuple[Signal, ...] = (),
    ) -> Finding:
        age = None if at is None else max(0.0, self.monitoring.at - at)
        place = GRAVITY.index(rule)
        return Finding(
            rule, rule_class, outcome, message, value, threshold, age, dwell_left, signals, True, place
        )


def explain_gap(gap: Gap, what: str, context: Context, signal: Signal) -> str:
    match gap:
        case Gap.ABSENT:
            return f"no sample of {what}"
        case Gap.STALE:
            return f"the last sample of {what} is older than {context.monitoring.stale_after:.0f} s"
        case Gap.AMBIGUOUS:
            return f"more than one series of {what} for this worker"
        case Gap.NOT_A_NUMBER:
            return f"{what} is not a number"
        case Gap.QUERY_FAILED:
            return f"query of {what} failed: {context.monitoring.failed.get(signal, 'no answer')}"
        case Gap.OTHER_INCARNATION:
            return f"samples of {what} are of an earlier life of the process"


def trailing_run(
    series: Series, holds: Callable[[float], bool], gap: float, since: float = -math.inf
) -> float | None:
    """Start time of the unbroken run of newest samples for which ``holds`` is true; None without one.

    A hole longer than ``gap`` seconds ends the run: nothing is known about the time in it.
    """
    start: float | None = None
    for at, value in reversed(series.samples):
        if at < since or not holds(value) or (start is not None and start - at > gap):
            break
        start = at
    return start
