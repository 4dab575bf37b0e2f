"""The rules: each one function from the evidence about a worker to findings.

Stateless: every dwell is read from raw samples of the current incarnation, so a restarted operator,
``explain`` and ``replay`` come to the same verdict from the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sn17_contract.metrics import CANARY_DRIFT_THRESHOLD, DegradedReason

from sn17_operator.api import RuleAction, Rules
from sn17_operator.core.context import Context, explain_gap, trailing_run
from sn17_operator.core.device_rules import device, gpu_errors, model_failing
from sn17_operator.core.memory_rules import memory
from sn17_operator.core.model import Finding, Outcome, RuleClass, RuleName
from sn17_operator.core.readings import Gap, Series, Signal


def _recent(
    context: Context,
    name: RuleName,
    signal: Signal,
    minimum: int,
    what: str,
    threshold: float,
    breached: Callable[[float], bool],
    show: Callable[[float], str],
) -> Iterator[Finding]:
    """A gauge over the incarnation's recent task generations, judged only when there are enough of them."""
    signals = (signal, Signal.GENERATIONS)
    count = context.reading(Signal.GENERATIONS)

    def answer(outcome: Outcome, text: str, series: Series | None = None) -> Finding:
        value, at = (None, None) if series is None else (series.value, series.at)
        return context.finding(
            name, RuleClass.QUALITY, outcome, text, value=value, threshold=threshold, at=at, signals=signals
        )

    if isinstance(count, Gap):
        outcome = Outcome.IDLE if count is Gap.ABSENT and context.evidence.boot_id else Outcome.UNKNOWN
        yield answer(
            outcome, explain_gap(count, "the number of recent generations", context, Signal.GENERATIONS)
        )
        return
    if count.value < minimum:
        yield answer(Outcome.IDLE, f"{count.value:.0f} of {minimum} generations needed to judge {what}")
        return
    reading = context.reading(signal)
    if isinstance(reading, Gap):
        yield answer(Outcome.UNKNOWN, explain_gap(reading, what, context, signal))
        return
    measured = f"{what} is {show(reading.value)} over {count.value:.0f} generations"
    text = f"{measured}, the threshold is {show(threshold)}"
    yield answer(Outcome.BREACH if breached(reading.value) else Outcome.OK, text, reading)


def gaussians(context: Context) -> Iterator[Finding]:
    """GaussiansLow: the recent mean is below the threshold."""
    rule = context.spec.rules.gaussians
    threshold = float(rule.minimum_mean)
    yield from _recent(
        context,
        RuleName.GAUSSIANS_LOW,
        Signal.GAUSSIANS,
        rule.minimum_generations,
        "mean gaussian count",
        threshold,
        lambda value: value < threshold,
        lambda value: f"{value:,.0f}",
    )


def slow(context: Context) -> Iterator[Finding]:
    """Slow: the recent median generation takes longer than the threshold."""
    rule = context.spec.rules.slow
    threshold = float(rule.p50_seconds)
    yield from _recent(
        context,
        RuleName.SLOW,
        Signal.SECONDS_P50,
        rule.minimum_generations,
        "median generation time",
        threshold,
        lambda value: value > threshold,
        lambda value: f"{value:.1f} s",
    )


def canary(context: Context) -> Iterator[Finding]:
    """What the fixed-seed canary says: against its reference, and against the peers."""
    yield from _canary_drifts(context)
    yield from _canary_disagrees(context)


def _canary_drifts(context: Context) -> Iterator[Finding]:
    """CanaryDrift: the worker's fixed-seed canary differs from the reference by more than the tolerance."""
    threshold = context.spec.rules.canary.drift_percent / 100
    signals = (Signal.CANARY, Signal.DEGRADED)
    reading = context.reading(Signal.CANARY)
    doubt = context.evidence.doubt
    drifted = isinstance(reading, Series) and reading.value > CANARY_DRIFT_THRESHOLD
    if doubt is DegradedReason.CANARY_UNUSABLE or (doubt is DegradedReason.CANARY_FAILED and not drifted):
        # Drift has its threshold here; what fails the worker's own check of soundness has none.
        text = f"the worker's own canary: {doubt.value.removeprefix('canary_')}"
        yield context.finding(
            RuleName.CANARY_DRIFT,
            RuleClass.QUALITY,
            Outcome.BREACH,
            text,
            threshold=threshold,
            signals=signals,
        )
        return
    if isinstance(reading, Gap):
        # Before the first canary the gauge is absent or NaN: that is nothing to judge by, not a fault.
        quiet = reading in (Gap.ABSENT, Gap.NOT_A_NUMBER) and context.evidence.boot_id is not None
        text = (
            "no canary has run yet" if quiet else explain_gap(reading, "canary drift", context, Signal.CANARY)
        )
        outcome = Outcome.IDLE if quiet else Outcome.UNKNOWN
        yield context.finding(
            RuleName.CANARY_DRIFT, RuleClass.QUALITY, outcome, text, threshold=threshold, signals=signals
        )
        return
    yield context.finding(
        RuleName.CANARY_DRIFT,
        RuleClass.QUALITY,
        Outcome.BREACH if reading.value > threshold else Outcome.OK,
        f"the canary is off by {reading.value:.0%}, tolerated are {threshold:.0%}",
        value=reading.value,
        threshold=threshold,
        at=reading.at,
        signals=signals,
    )


def _canary_disagrees(context: Context) -> Iterator[Finding]:
    """CanaryDisagrees: the fixed-seed canary is not what most workers of the same kind make."""
    if context.evidence.canary is None:
        return
    outcome = Outcome.OK if context.disagrees is None else Outcome.BREACH
    text = context.disagrees or "its canary is that of its peers, or there are too few to tell"
    signals = (Signal.CANARY_INFO,)
    yield context.finding(RuleName.CANARY_DISAGREES, RuleClass.QUALITY, outcome, text, signals=signals)


def _stall_finding(
    context: Context,
    rule: RuleName,
    after: float,
    signals: tuple[Signal, ...],
    outcome: Outcome,
    text: str,
    value: float | None = None,
    at: float | None = None,
) -> Finding:
    """Finding of a rule whose value is the seconds something has lasted, with ``after`` as its threshold."""
    left = 0.0 if value is None else max(0.0, after - value)
    return context.finding(
        rule,
        RuleClass.STALL,
        outcome,
        text,
        value=value,
        threshold=after,
        at=at,
        dwell_left=left,
        signals=signals,
    )


def stalled(context: Context) -> Iterator[Finding]:
    """Stalled: a job is in flight and its progress has not moved.

    Progress is compared with itself from scrape to scrape, so no clock of the worker is compared with
    another.
    """
    after = float(context.spec.rules.stalled.after_seconds)
    signals = (Signal.JOBS, Signal.PROGRESS)

    answer = partial(_stall_finding, context, RuleName.STALLED, after, signals)

    jobs = context.reading(Signal.JOBS)
    if isinstance(jobs, Gap):
        quiet = jobs is Gap.ABSENT and context.evidence.boot_id is not None
        outcome = Outcome.IDLE if quiet else Outcome.UNKNOWN
        yield answer(outcome, explain_gap(jobs, "jobs in flight", context, Signal.JOBS))
        return
    if jobs.value <= 0:
        yield answer(Outcome.OK, "no job is in flight", at=jobs.at)
        return
    progress = context.reading(Signal.PROGRESS)
    if isinstance(progress, Gap):
        yield answer(Outcome.UNKNOWN, explain_gap(progress, "progress", context, Signal.PROGRESS))
        return
    hole = context.monitoring.stale_after
    last = progress.value
    still = trailing_run(progress, lambda value: value == last, hole)
    busy = trailing_run(jobs, lambda value: value > 0, hole)
    seconds = jobs.at - max(still or progress.at, busy or jobs.at)
    text = f"a job has made no progress for {seconds:.0f} s, tolerated are {after:.0f} s"
    yield answer(
        Outcome.BREACH if seconds > after else Outcome.DWELL if seconds > 0 else Outcome.OK,
        text,
        seconds,
        jobs.at,
    )


def unreachable(context: Context) -> Iterator[Finding]:
    """Unreachable: the worker's scrape fails, or there is none, while the monitoring itself works.

    ``up == 0`` among working targets is evidence. Everything gone at once is a fault of the monitoring.
    """
    after = float(context.spec.rules.unreachable.after_seconds)
    monitoring, started = context.monitoring, context.pod.started_at
    signals = (Signal.UP,)

    answer = partial(_stall_finding, context, RuleName.UNREACHABLE, after, signals)

    reading = context.evidence.reading(Signal.UP)
    if reading in (Gap.QUERY_FAILED, Gap.AMBIGUOUS, Gap.NOT_A_NUMBER) or started is None:
        gap = reading if isinstance(reading, Gap) else Gap.ABSENT
        yield answer(Outcome.UNKNOWN, explain_gap(gap, "up", context, Signal.UP))
        return
    since, at = started, None
    if isinstance(reading, Series):
        fresh = monitoring.at - reading.at <= monitoring.stale_after
        at = reading.at
        if fresh and reading.value > 0:
            yield answer(Outcome.OK, "the last scrape worked", at=at)
            return
        good = max((t for t, value in reading.samples if value > 0), default=None)
        first_bad = next((t for t, value in reading.samples if good is None or t > good), reading.at)
        since = max(started, good + monitoring.scrape_interval if good is not None else first_bad)
    elif monitoring.window:
        since = max(started, monitoring.at - monitoring.window)
    seconds = max(0.0, monitoring.at - since)
    if (
        monitoring.last_scrape is None
        or monitoring.at - monitoring.last_scrape > monitoring.stale_after
        or monitoring.coverage * monitoring.scrape_interval + monitoring.stale_after < after
    ):
        yield answer(Outcome.UNKNOWN, "no other target is scraped either: the monitoring is at fault", at=at)
        return
    how = "cannot be scraped" if isinstance(reading, Series) else "is not scraped at all"
    text = f"the worker {how} for {seconds:.0f} s, tolerated are {after:.0f} s; other targets work"
    yield answer(Outcome.BREACH if seconds > after else Outcome.DWELL, text, seconds, at)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it finds, where its action is set, and how it judges."""

    names: tuple[RuleName, ...]
    action: Callable[[Rules], RuleAction]
    evaluate: Callable[[Context], Iterator[Finding]]


CHAIN = (
    Rule(
        (RuleName.MEMORY_EMERGENCY, RuleName.MEMORY_HIGH, RuleName.POD_MEMORY_HIGH, RuleName.SWAP_DUE),
        lambda rules: rules.memory.action,
        memory,
    ),
    Rule((RuleName.DEVICE_UNHEALTHY,), lambda rules: rules.device.action, device),
    Rule((RuleName.GPU_ERROR,), lambda rules: rules.gpu_errors.action, gpu_errors),
    Rule((RuleName.MODEL_FAILING,), lambda rules: rules.model_failing.action, model_failing),
    Rule((RuleName.UNREACHABLE,), lambda rules: rules.unreachable.action, unreachable),
    Rule((RuleName.STALLED,), lambda rules: rules.stalled.action, stalled),
    Rule((RuleName.CANARY_DRIFT, RuleName.CANARY_DISAGREES), lambda rules: rules.canary.action, canary),
    Rule((RuleName.GAUSSIANS_LOW,), lambda rules: rules.gaussians.action, gaussians),
    Rule((RuleName.SLOW,), lambda rules: rules.slow.action, slow),
)
"""Every rule there is."""
