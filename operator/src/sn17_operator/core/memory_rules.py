"""The rules about memory: too full for a while, full, and worth a swap."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from operator import le

from sn17_operator.api import Strategy
from sn17_operator.core.context import Context, explain_gap, trailing_run
from sn17_operator.core.model import Finding, Outcome, RuleClass, RuleName
from sn17_operator.core.readings import Gap, Series, Signal

LAG_SCRAPES = 2.0
"""Scrape intervals from a sample until the worker is asked: one for the next sample, one for the tick."""
SLOPE_SAMPLES = 4
NO_POD_MEMORY = "Prometheus has no memory of pods (cAdvisor is not scraped), so PodMemoryHigh is not judged"


def memory_ratio(context: Context) -> tuple[Series | None, Gap | None, Signal]:
    """Unreclaimable bytes as shares of the limit; without one, the gap and the signal that has it."""
    memory, limit = context.reading(Signal.MEMORY), context.reading(Signal.LIMIT)
    if isinstance(memory, Gap):
        return None, memory, Signal.MEMORY
    if isinstance(limit, Gap):
        return None, limit, Signal.LIMIT
    if limit.value <= 0 or math.isinf(limit.value):
        return None, Gap.NOT_A_NUMBER, Signal.LIMIT
    return Series(tuple((at, value / limit.value) for at, value in memory.samples)), None, Signal.MEMORY


def memory(context: Context) -> Iterator[Finding]:
    """MemoryEmergency at once, MemoryHigh after its dwell, SwapDue at the worker's own threshold."""
    rule = context.spec.rules.memory
    signals = (Signal.MEMORY, Signal.LIMIT)
    series, gap, missing = memory_ratio(context)
    two = two_processes(context)
    for name, threshold, dwell in (
        (RuleName.MEMORY_EMERGENCY, rule.emergency_percent / 100, 0.0),
        (RuleName.MEMORY_HIGH, rule.high_percent / 100, float(rule.high_for_seconds)),
    ):
        if two is not None:
            yield context.finding(
                name, RuleClass.MEMORY, Outcome.RESTING, two, threshold=threshold, signals=signals
            )
            continue
        if series is None:
            what = "unreclaimable memory" if missing is Signal.MEMORY else "the memory limit"
            text = explain_gap(gap or Gap.ABSENT, what, context, missing)
            yield context.finding(
                name, RuleClass.MEMORY, Outcome.UNKNOWN, text, threshold=threshold, signals=signals
            )
            continue
        start = trailing_run(series, partial(le, threshold), context.monitoring.stale_after)
        left = 0.0 if start is None else max(0.0, dwell - (series.at - start))
        guard = _guard(context)
        if start is not None and guard is not None and series.value < guard:
            text = f"left to the worker's own guard, which renews the model process at {guard:.0%}"
            yield context.finding(
                name, RuleClass.MEMORY, Outcome.RESTING, text, threshold=threshold, signals=signals
            )
            continue
        text = f"unreclaimable memory is {series.value:.0%} of the limit, the threshold is {threshold:.0%}"
        if start is None:
            outcome = Outcome.OK
        elif left > 0:
            outcome, text = Outcome.DWELL, f"{text}, acts in {left:.0f} s if it stays"
        else:
            outcome = Outcome.BREACH
            text += f" for {dwell:.0f} s" if dwell else ""
        yield context.finding(
            name,
            RuleClass.MEMORY,
            outcome,
            text,
            value=series.value,
            threshold=threshold,
            at=series.at,
            dwell_left=left,
            signals=signals,
        )

    yield from _pod_memory(context)
    if context.spec.strategy is Strategy.SWAP and context.evidence.separate_model:
        yield _swap_due(context, series, two)


def _pod_memory(context: Context) -> Iterator[Finding]:
    """PodMemoryHigh: after a restart the pod is as full as before, and not of what its container holds.

    A memory-backed volume outlives the container that wrote it. Only soon after a restart: later files that
    the kernel merely keeps in its cache would look the same.
    """
    recycle, threshold = context.spec.recycle, context.spec.rules.memory.high_percent / 100
    signals = (Signal.POD_MEMORY, Signal.MEMORY, Signal.LIMIT)
    pod, own, limit = (context.reading(signal) for signal in signals)
    started, now = context.pod.started_at, context.monitoring.at
    if context.monitoring.pod_memory is False:
        yield context.finding(
            RuleName.POD_MEMORY_HIGH,
            RuleClass.MEMORY,
            Outcome.IDLE,
            NO_POD_MEMORY,
            threshold=threshold,
            signals=signals,
        )
        return
    if isinstance(pod, Gap) or isinstance(own, Gap) or isinstance(limit, Gap) or not limit.value > 0:
        return
    if started is None or pod.at < started or not context.pod.restarts:
        return
    if now - started > recycle.young_seconds:
        return
    ratio, beyond = pod.value / limit.value, (pod.value - own.value) / limit.value
    left = beyond > recycle.leftover_percent / 100 and ratio >= threshold
    text = f"the pod holds {ratio:.0%} of the limit, {beyond:.0%} of it beyond its container, after a restart"
    outcome = Outcome.BREACH if left else Outcome.OK
    name = RuleName.POD_MEMORY_HIGH
    yield context.finding(
        name, RuleClass.MEMORY, outcome, text, value=ratio, threshold=threshold, at=pod.at, signals=signals
    )


def growth(ratios: Series) -> float:
    """Shares of the limit a second that memory has grown by in the samples of this life; 0 for too few."""
    (first_at, first), (last_at, last) = ratios.samples[0], ratios.samples[-1]
    if len(ratios.samples) < SLOPE_SAMPLES or last_at <= first_at:
        return 0.0
    return max(0.0, (last - first) / (last_at - first_at))


def _guard(context: Context) -> float | None:
    """Where the guard of a worker refuses that can recycle its model alone; None: it has none."""
    reading = context.reading(Signal.GUARD)
    return None if isinstance(reading, Gap) or not context.evidence.separate_model else reading.value


def two_processes(context: Context) -> str | None:
    """Said while two model processes share the memory, up to the deadline of a swap."""
    reading = context.reading(Signal.MODEL_PROCESSES)
    if isinstance(reading, Gap) or reading.value < 2:
        return None
    start = trailing_run(reading, lambda value: value >= 2, context.monitoring.stale_after)
    seconds = reading.at - (reading.at if start is None else start)
    if seconds >= context.spec.rules.memory.swap_seconds:
        return None
    return f"two model processes live for {seconds:.0f} s: a swap is under way"


def _swap_due(context: Context, ratios: Series | None, two: str | None) -> Finding:
    """A fresh process can take over at no cost as long as there is room for both."""
    signals = (Signal.MEMORY, Signal.LIMIT, Signal.SWAP_THRESHOLD, Signal.SWAP_ROOM)
    answer = partial(context.finding, RuleName.SWAP_DUE, RuleClass.MEMORY, signals=signals)
    threshold, room = context.reading(Signal.SWAP_THRESHOLD), context.reading(Signal.SWAP_ROOM)
    if two is not None:
        return answer(Outcome.RESTING, two)
    if ratios is None or isinstance(threshold, Gap) or isinstance(room, Gap):
        return answer(Outcome.IDLE, "the worker does not say yet when a swap is due")
    if room.value <= 0:
        text = "there is no room for a second model process"
        return answer(Outcome.IDLE, text, threshold=threshold.value, at=room.at)
    # A guard swaps between two jobs before it is too late; without one that is the operator's affair.
    lag = 0.0 if _guard(context) is not None else LAG_SCRAPES * context.monitoring.scrape_interval
    soon = ratios.value + growth(ratios) * lag
    text = (
        f"unreclaimable memory is {ratios.value:.0%} of the limit, {soon:.0%} by the time a swap begins; "
        f"one is due at {threshold.value:.0%}"
    )
    outcome = Outcome.DUE if soon >= threshold.value else Outcome.OK
    return answer(outcome, text, value=ratios.value, threshold=threshold.value, at=ratios.at)
