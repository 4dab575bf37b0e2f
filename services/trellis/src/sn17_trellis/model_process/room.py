"""Whether two model processes fit beside each other for the time of a swap. Pure; bytes and seconds."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MIN_GROWTHS: Final = 3
"""A process that would have to go again after fewer generations is not worth a swap."""
GROWTHS_KEPT: Final = 8
SWAPS_KEPT: Final = 20


@dataclass(frozen=True, slots=True)
class Terms:
    """What was measured of this worker.

    ``fresh_peak``: most that a process takes from its start to the end of its canary. ``rest``: the whole
    container with one fresh process at rest. ``growth``: what a generation leaves behind, never below 0.
    ``swap_seconds``: p95 of swaps, ``job_seconds``: p50 of jobs. ``device_need`` and ``device_free`` are
    None without a device.
    """

    limit: int
    refuse_ratio: float
    fresh_peak: int
    rest: int
    growth: int
    swap_seconds: float
    job_seconds: float
    device_need: int | None = None
    device_free: int | None = None

    @property
    def refuse(self) -> int:
        """Bytes from which on the guard refuses."""
        return math.floor(self.refuse_ratio * self.limit)

    @property
    def jobs_meanwhile(self) -> int:
        """Generations that the old process makes during a swap."""
        return math.ceil(self.swap_seconds / self.job_seconds) if self.job_seconds > 0 else 1

    @property
    def threshold(self) -> int:
        """The level at which a swap should begin: one generation before it fits no more."""
        return self.refuse - self.fresh_peak - self.growth * (self.jobs_meanwhile + 1)

    @property
    def threshold_ratio(self) -> float:
        return self.threshold / self.limit

    @property
    def half_way(self) -> float:
        """Half of the way from a fresh process at rest to the threshold."""
        return self.rest + (self.threshold - self.rest) / 2

    def by_name(self) -> Mapping[str, int]:
        """The terms in bytes, as they are exported."""
        return {
            "fresh_peak": self.fresh_peak,
            "fresh_rest": self.rest,
            "growth": self.growth,
            "threshold": max(0, self.threshold),
        }


def no_room(terms: Terms, used: int) -> str | None:
    """Why a swap does not fit at ``used`` bytes of the container; None where it does."""
    if terms.threshold - terms.rest < MIN_GROWTHS * terms.growth or terms.threshold <= terms.rest:
        return (
            f"a fresh process needs {_mib(terms.fresh_peak)} and starts at {_mib(terms.rest)}: the threshold "
            f"of {_mib(terms.threshold)} leaves less than {MIN_GROWTHS} generations of {_mib(terms.growth)}"
        )
    need = used + terms.fresh_peak + terms.growth * terms.jobs_meanwhile
    if need > terms.refuse:
        return f"{_mib(need)} would be needed, and the guard refuses from {_mib(terms.refuse)} on"
    free, device_need = terms.device_free, terms.device_need
    if free is not None and device_need is not None and free < device_need:
        return f"the device has {_mib(free)} free, a fresh process needs {_mib(device_need)}"
    return None


def job_must_wait(terms: Terms, used: int, fresh_now: int) -> bool:
    """While two live: whether one more generation would take what the fresh process still needs."""
    return used + terms.growth > terms.refuse - max(0, terms.fresh_peak - fresh_now)


@dataclass(slots=True)
class Measures:
    """Collects the terms. ``None`` everywhere until the first process has started."""

    fresh_peak: int | None = None
    rest: int | None = None
    device_need: int | None = None
    start_seconds: float | None = None
    canary_seconds: float | None = None
    swaps: deque[float] = field(default_factory=lambda: deque(maxlen=SWAPS_KEPT))
    growths: deque[int] = field(default_factory=lambda: deque(maxlen=GROWTHS_KEPT))
    _last: int | None = None

    def started(self, peak: int, seconds: float) -> None:
        """A process has become ready; the largest peak and the latest time count."""
        self.fresh_peak = max(peak, self.fresh_peak or 0)
        self.start_seconds = seconds

    def at_rest(self, used: int) -> None:
        """One fresh process at rest: the reading that later ones are compared with."""
        self.rest, self._last = used, None
        self.growths.clear()

    def after_job(self, used: int) -> None:
        """The container's level between two jobs; the first one fills caches and tells no growth."""
        if self._last is not None:
            self.growths.append(used - self._last)
        self._last = used

    @property
    def growth(self) -> int:
        """Mean of the latest generations, or their median where that is more."""
        if not self.growths:
            return 0
        return max(0, math.ceil(statistics.fmean(self.growths)), math.ceil(statistics.median(self.growths)))

    @property
    def swap_seconds(self) -> float | None:
        """p95 of swaps; before the first one the time that a start took."""
        return quantile(self.swaps, 0.95) if self.swaps else self.start_seconds

    def terms(
        self,
        *,
        limit: int | None,
        refuse_ratio: float,
        job_seconds: float | None,
        device_free: int | None,
    ) -> Terms | None:
        """The terms, or None while one of them is unknown."""
        seconds = self.swap_seconds
        if limit is None or self.fresh_peak is None or self.rest is None or seconds is None:
            return None
        # Before the first job and canary, a job is taken to last as long as the start did.
        job = job_seconds or self.canary_seconds or seconds
        return Terms(
            limit,
            refuse_ratio,
            self.fresh_peak,
            self.rest,
            self.growth,
            seconds,
            job,
            self.device_need,
            device_free,
        )


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
