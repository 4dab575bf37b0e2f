"""From raw series to the evidence about one incarnation of one worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sn17_service.contract import DegradedReason

from .api import Rules
from .model import Evidence, Gap, Reading, Series, Signal

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


def attribute(raw: Raw, started_at: float | None, failed: Mapping[Signal, str]) -> Evidence:
    """Keep what belongs to the newest incarnation and what is unambiguous.

    All metrics of one scrape carry the same timestamp, so a sample belongs to an incarnation exactly when
    that incarnation's boot marker has a sample at the same time. Samples from before ``started_at`` (when
    the container started) belong to an earlier one whatever they say. Two series of one signal at the same
    time are ambiguous.
    """
    boot, times = _newest_boot(raw.boots, started_at)
    # With one incarnation in sight its samples need no sorting out, only those outside its time.
    sole = (min(times), max(times)) if len(raw.boots) == 1 and times else None
    readings: dict[Signal, Reading] = {}
    for signal in Signal:
        if signal in failed:
            readings[signal] = Gap.QUERY_FAILED
            continue
        found = [s for s in raw.series.get(signal, ()) if s]
        if signal is Signal.BOOT:
            readings[signal] = (
                boot if isinstance(boot, Gap) else Series(tuple((t, 1.0) for t in sorted(times)))
            )
        elif len(found) > 1:
            readings[signal] = Gap.AMBIGUOUS
        elif not found:
            readings[signal] = Gap.ABSENT
        elif signal in POD_SIGNALS:
            readings[signal] = Series(found[0])
        elif isinstance(boot, Gap):
            readings[signal] = boot
        else:
            own = _of_incarnation(found[0], times, sole)
            readings[signal] = Series(own) if own else Gap.OTHER_INCARNATION
    if Signal.BOOT in failed:
        readings.update({s: Gap.QUERY_FAILED for s in Signal if s not in POD_SIGNALS})
        return Evidence(None, readings)
    return Evidence(None if isinstance(boot, Gap) else boot, readings)


def _of_incarnation(samples: Samples, times: frozenset[float], sole: tuple[float, float] | None) -> Samples:
    if sole is not None and samples[0][0] >= sole[0] and samples[-1][0] <= sole[1]:
        return samples
    return tuple((at, value) for at, value in samples if at in times)


def _newest_boot(
    boots: tuple[tuple[str, Samples], ...], started_at: float | None
) -> tuple[str | Gap, frozenset[float]]:
    known = [
        (boot_id, [at for at, _ in samples if started_at is None or at >= started_at])
        for boot_id, samples in boots
    ]
    current = [(boot_id, times) for boot_id, times in known if times]
    if not current:
        return (Gap.OTHER_INCARNATION if boots else Gap.ABSENT), frozenset()
    boot_id, times = max(current, key=lambda item: item[1][-1])
    # A second scrape of the same worker, or two workers behind one identity: nobody knows which is right.
    if any(other is not times and other[-1] >= times[0] for _, other in current):
        return Gap.AMBIGUOUS, frozenset()
    return boot_id, frozenset(times)


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
