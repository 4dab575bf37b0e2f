"""From raw series to the evidence about one incarnation of one worker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sn17_contract.metrics import DegradedReason, DeviceFault

from sn17_operator.api import Rules
from sn17_operator.core.readings import Evidence, Gap, Monitoring, Reading, Series, Signal

Samples = tuple[tuple[float, float], ...]

Labelled = tuple[tuple[str, Samples], ...]
"""Series that say something by a label: (its value, samples)."""

POD_SIGNALS = frozenset({Signal.UP, Signal.POD_MEMORY})
"""Signals of the pod, not of the processes in it: no scrape of the worker itself delivers them."""

SERVICE_SIGNALS = frozenset(
    {
        Signal.BOOT,
        Signal.MODEL_PROCESSES,
        Signal.FAILING_STARTS,
        Signal.DRAINING_USER,
        Signal.DRAINING_OPERATOR,
    }
)
"""Signals of the service process, whichever model process lives in it."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Raw samples about one worker: per signal all its series, each with its labels' identity.

    ``boots`` are the series of the boot marker by boot id, ``lives`` those of the life marker by life id,
    ``doubts`` those of the worker's own word that it is degraded by reason,
    ``canaries`` those of its last canary, ``devices`` those of its device by UUID, ``faults`` those of what
    the driver says against it.
    """

    boots: Labelled = ()
    series: Mapping[Signal, Sequence[Samples]] = field(default_factory=dict)
    doubts: Labelled = ()
    lives: Labelled = ()
    canaries: Labelled = ()
    devices: Labelled = ()
    faults: Labelled = ()

    @classmethod
    def of(
        cls,
        uid: str,
        infos: Mapping[Signal, Mapping[str, Sequence[tuple[str, Samples]]]],
        series: Mapping[str, Mapping[Signal, Sequence[Samples]]],
    ) -> Raw:
        """The worker ``uid`` out of all that was read; ``infos`` has the signals of ``INFO_LABELS``."""
        return cls(
            tuple(infos[Signal.BOOT].get(uid, ())),
            series.get(uid, {}),
            tuple(infos[Signal.DEGRADED].get(uid, ())),
            tuple(infos[Signal.LIFE].get(uid, ())),
            tuple(infos[Signal.CANARY_INFO].get(uid, ())),
            tuple(infos[Signal.DEVICE].get(uid, ())),
            tuple(infos[Signal.DEVICE_FAULT].get(uid, ())),
        )


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
    """Keep what belongs to the newest life of the newest incarnation and what is unambiguous.

    All metrics of one scrape carry the same timestamp, so a sample belongs to an incarnation or a life
    exactly when that one's marker has a sample at the same time. Samples from before ``started_at`` (when
    the container started) belong to an earlier one whatever they say. Two series of one signal at the same
    time are ambiguous. A worker without a life marker is one process: its boot marker is its life's.
    """
    boot, own = _newest_boot(raw.boots, started_at)
    life, lived = (boot, own) if isinstance(boot, Gap) else _newest_life(raw.lives, boot, own, failed)
    service = _Marker(boot, own, len(raw.boots) == 1)
    model = _Marker(life, lived, len(raw.boots) == 1 and len(raw.lives) <= 1)
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
        else:
            readings[signal] = (service if signal in SERVICE_SIGNALS else model).keep(found[0])
    if Signal.BOOT in failed:
        readings.update({s: Gap.QUERY_FAILED for s in Signal if s not in POD_SIGNALS})
        return Evidence(None, readings)
    if isinstance(boot, Gap):
        readings[Signal.BOOT] = boot
        return Evidence(None, readings)
    readings[Signal.BOOT] = Series(own)
    # The device is the container's, whichever model process lives in it.
    devices, faults = (_said(labelled, own[-1][0]) for labelled in (raw.devices, raw.faults))
    device = devices[0] if len(devices) == 1 else None
    known = tuple(fault for fault in DeviceFault if fault in faults) if faults else ()
    if isinstance(life, Gap):
        return Evidence(boot, readings, device=device, faults=known)
    readings[Signal.LIFE] = Series(lived)
    doubt = None if Signal.DEGRADED in failed else _doubt(raw.doubts, lived[-1][0])
    canaries = () if Signal.CANARY_INFO in failed else _said(raw.canaries, lived[-1][0])
    canary = canaries[0] if len(canaries) == 1 else None
    return Evidence(boot, readings, doubt, life, lived[0][0], canary, device, known)


class _Marker:
    """The samples of one incarnation or life, or why none is known; ``alone``: no other is in sight."""

    def __init__(self, identity: str | Gap, own: Samples, alone: bool) -> None:
        self._gap = identity if isinstance(identity, Gap) else None
        self._own = own
        # With one in sight its samples need no sorting out, only those outside its time.
        within = alone and self._gap is None
        self._first, self._last = (own[0][0], own[-1][0]) if within else (math.inf, -math.inf)
        self._times: frozenset[float] | None = None

    def keep(self, samples: Samples) -> Reading:
        if self._gap is not None:
            return self._gap
        if samples[0][0] >= self._first and samples[-1][0] <= self._last:
            return Series(samples)
        if self._times is None:
            self._times = frozenset(at for at, _ in self._own)
        times = self._times
        kept = tuple((at, value) for at, value in samples if at in times)
        return Series(kept) if kept else Gap.OTHER_INCARNATION


def _newest_boot(boots: Labelled, started_at: float | None) -> tuple[str | Gap, Samples]:
    """The newest incarnation and the samples of its boot marker, or why there is none."""
    since = -math.inf if started_at is None else started_at
    current = [(boot, own) for boot, samples in boots if (own := _since(samples, since))]
    if not current:
        return (Gap.OTHER_INCARNATION if boots else Gap.ABSENT), ()
    return _newest(current)


def _newest_life(
    lives: Labelled, boot: str, own: Samples, failed: Mapping[Signal, str]
) -> tuple[str | Gap, Samples]:
    """The newest life of an incarnation and the samples of its marker; without any it is the incarnation."""
    if Signal.LIFE in failed:
        return Gap.QUERY_FAILED, ()
    if not lives:
        return boot, own
    times = frozenset(at for at, _ in own)
    found = ((life, tuple(s for s in samples if s[0] in times)) for life, samples in lives)
    current = [(life, samples) for life, samples in found if samples]
    return _newest(current) if current else (boot, own)


def _newest(current: Sequence[tuple[str, Samples]]) -> tuple[str | Gap, Samples]:
    identity, samples = max(current, key=lambda item: item[1][-1][0])
    # A second scrape of the same worker, or two workers behind one identity: nobody knows which is right.
    if any(other is not samples and other[-1][0] >= samples[0][0] for _, other in current):
        return Gap.AMBIGUOUS, ()
    return identity, samples


def _since(samples: Samples, at: float) -> Samples:
    return samples if samples and samples[0][0] >= at else tuple(s for s in samples if s[0] >= at)


def _doubt(doubts: Labelled, at: float) -> DegradedReason | None:
    """The reason, of those this version knows, that has a sample at a time."""
    said = _said(doubts, at)
    return next((reason for reason in DegradedReason if reason in said), None)


def _said(labelled: Labelled, at: float) -> tuple[str, ...]:
    """The labels that have a sample at a time."""
    if not labelled:
        return ()
    return tuple(label for label, samples in labelled if samples and samples[-1][0] == at)


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
    found[Signal.MODEL_PROCESSES] = max((r.memory.swap_seconds for r in rules), default=0) + margin
    markers = max(memory, stalled, found[Signal.MODEL_PROCESSES])
    # A counter of the service is compared with itself over the life, as far as that is in sight.
    found[Signal.BOOT] = found[Signal.LIFE] = found[Signal.GPU_ERRORS] = markers
    return found
