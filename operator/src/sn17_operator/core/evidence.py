"""From raw series to the evidence about one incarnation of one worker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sn17_contract.metrics import DegradedReason

from sn17_operator.api import Rules
from sn17_operator.core.model import Evidence, Gap, Monitoring, Reading, Series, Signal

Samples = tuple[tuple[float, float], ...]

POD_SIGNALS = frozenset({Signal.UP, Signal.POD_MEMORY})
"""Signals of the pod, not of the process in it: no scrape of the worker itself delivers them."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Raw samples about one worker: per signal all its series, each with its labels' identity.

    ``boots`` are the series of the boot marker: (boot id, samples).
    """

    boots: tuple[tuple[str, Samples], ...] = ()
    series: Mapping[Signal, Sequence[Samples]] = field(default_factory=dict)


def within_fleet(monitoring: Monitoring, raws: Iterable[Raw]) -> Monitoring:
    """The monitoring as one fleet sees it.

    Where none of its workers has a fresh ``up``, good or bad, nobody tries to scrape them: that is a fault of
    the monitoring, however well other targets are scraped, and says nothing about the workers.
    """
    since = monitoring.at - monitoring.stale_after
    tried = any(
        samples[-1][0] >= since for raw in raws for samples in raw.series.get(Signal.UP, ()) if samples
    )
    return monitoring if tried else replace(monitoring, last_scrape=None)


def attribute(raw: Raw, started_at: float | None, failed: Mapping[Signal, str]) -> Evidence:
    """Keep what belongs to the newest incarnation and what is unambiguous.

    All metrics of one scrape carry the same timestamp, so a sample belongs to an incarnation exactly when
    that incarnation's boot marker has a sample at the same time. Samples from before ``started_at`` (when
    the container started) belong to an earlier one whatever they say. Two series of one signal at the same
    time are ambiguous.
    """
    boot, own = _newest_boot(raw.boots, started_at)
    known = not isinstance(boot, Gap)
    # With one incarnation in sight its samples need no sorting out, only those outside its time.
    first, last = (own[0][0], own[-1][0]) if known and len(raw.boots) == 1 else (math.inf, -math.inf)
    times: frozenset[float] | None = None
    readings: dict[Signal, Reading] = dict.fromkeys(failed, Gap.QUERY_FAILED)
    for signal, several in raw.series.items():
        if signal in failed:
            continue
        found = [samples for samples in several if samples]
        if not found:
            continue
        if len(found) > 1:
            readings[signal] = Gap.AMBIGUOUS
        elif signal is Signal.UP and any(math.isnan(value) for _, value in found[0]):
            readings[signal] = Gap.NOT_A_NUMBER
        elif signal in POD_SIGNALS:
            readings[signal] = Series(found[0])
        elif isinstance(boot, Gap):
            readings[signal] = boot
        elif found[0][0][0] >= first and found[0][-1][0] <= last:
            readings[signal] = Series(found[0])
        else:
            times = times or frozenset(at for at, _ in own)
            kept = tuple((at, value) for at, value in found[0] if at in times)
            readings[signal] = Series(kept) if kept else Gap.OTHER_INCARNATION
    if Signal.BOOT in failed:
        readings.update({s: Gap.QUERY_FAILED for s in Signal if s not in POD_SIGNALS})
        return Evidence(None, readings)
    readings[Signal.BOOT] = boot if isinstance(boot, Gap) else Series(own)
    return Evidence(None if isinstance(boot, Gap) else boot, readings)


def _newest_boot(
    boots: tuple[tuple[str, Samples], ...], started_at: float | None
) -> tuple[str | Gap, Samples]:
    """The newest incarnation and the samples of its boot marker, or why there is none."""
    since = -math.inf if started_at is None else started_at
    current = [(boot, own) for boot, samples in boots if (own := _since(samples, since))]
    if not current:
        return (Gap.OTHER_INCARNATION if boots else Gap.ABSENT), ()
    boot, samples = max(current, key=lambda item: item[1][-1][0])
    # A second scrape of the same worker, or two workers behind one identity: nobody knows which is right.
    if any(other is not samples and other[-1][0] >= samples[0][0] for _, other in current):
        return Gap.AMBIGUOUS, ()
    return boot, samples


def _since(samples: Samples, at: float) -> Samples:
    return samples if samples and samples[0][0] >= at else tuple(s for s in samples if s[0] >= at)


def self_doubt(evidence: Evidence) -> DegradedReason | None:
    """Why the worker itself said, at its newest scrape, that it is degraded; None when it did not."""
    said, scraped = evidence.series(Signal.DEGRADED), evidence.series(Signal.BOOT)
    if said is None or scraped is None or said.at < scraped.at:
        return None
    return next((r for place, r in enumerate(DegradedReason, 1) if place == said.value), None)


def windows(rules: Sequence[Rules], interval: float) -> dict[Signal, float]:
    """Seconds that each signal's samples must look back for its rules to see their whole dwell."""
    margin = 2 * interval + 5
    memory = (
        max((max(r.memory.high_for_seconds, r.memory.clear_for_seconds) for r in rules), default=0) + margin
    )
    stalled = max((r.stalled.after_seconds for r in rules), default=0) + margin
    unreachable = max((r.unreachable.after_seconds for r in rules), default=0) + margin
    found = dict.fromkeys(Signal, margin)
    found[Signal.MEMORY] = memory
    found[Signal.JOBS] = found[Signal.PROGRESS] = stalled
    found[Signal.UP] = unreachable
    found[Signal.BOOT] = max(memory, stalled)
    return found
