"""Whether two model processes fit beside each other for the time of a swap. Pure; bytes and seconds."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sn17_trellis.model_process.fading import Best, Costs, Fading, best

IN_SERVICE: Final = 0.01
FREED_LEAST: Final = 0.5
TELLING_GROWTHS: Final = 4
"""A life that has added less says nothing about what its end gives back."""
GROWTHS_KEPT: Final = 32
"""Enough that the estimate moves the threshold by less than the generation that is kept free."""
SWAPS_KEPT: Final = 20
GAPS_KEPT: Final = 64
"""Work comes unevenly, and acts that follow from the gaps shorten them: over many the estimate is steady."""
GENTLE_SHARE: Final = 0.1
"""Of a job's time: how long a fresh process may hold the device between two of them."""
ASKED_SHARE: Final = GENTLE_SHARE / 2
"""The least of it that is asked for: a turn ends with a step, which adds about as much again."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What was measured of this worker.

    ``fresh_peak``: most that a process takes from its start to the end of its canary. ``rest``: the whole
    container with one fresh process at rest. ``growth``: what a generation leaves behind, never below 0;
    ``jump``: the most that one of the latest left. ``swap_seconds``: p95 of swaps, ``job_seconds``: p50 of
    jobs, ``idle_seconds``: mean of the time between two for which there was no work. ``start_seconds``: from
    a start until the process serves, which is what a replacement costs; ``device_seconds``: the part of it
    that needs the device, the least that a swap costs. ``device_need`` and ``device_free`` are None without
    a device. ``freed``: share of what was added that the end of a model process gives back; the rest is held
    by the service, and only a new container frees it; ``service_share`` is what the service's own process
    holds of it, without volumes in memory, which outlive a container. ``faded``: how far from rest to the
    refusing level memory should fill where assets get smaller with it, and the act that is due then; None
    where they do not.
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
    start_seconds: float = math.inf
    device_seconds: float = 0.0
    jump: int = 0
    freed: float = 1.0
    idle_seconds: float = 0.0
    service_share: float = 0.0
    faded: Best | None = None

    @property
    def refuse(self) -> int:
        """Bytes from which on the guard refuses."""
        return math.floor(self.refuse_ratio * self.limit)

    @property
    def jobs_meanwhile(self) -> int:
        """Generations that the old process makes during a swap: as many as last so long, or as fit.

        Where fewer fit, it waits for the rest of the swap.
        """
        wanted = math.ceil(self.swap_seconds / self.between_jobs) if self.job_seconds > 0 else 1
        if self.growth <= 0:
            return wanted
        # One byte, so that a swap is due above the level of a fresh process, and not at it.
        room = self.refuse - self.fresh_peak - max(self.growth, self.jump) - self.rest - 1
        return max(1, min(wanted, room // self.growth))

    @property
    def between_jobs(self) -> float:
        """Seconds from one job to the next, as work comes."""
        return self.job_seconds + self.idle_seconds

    @property
    def swap_cost(self) -> float:
        """Seconds that a swap takes from the device: its own, and those in which the old process waits."""
        return max(self.device_seconds, self.swap_seconds - self.jobs_meanwhile * self.between_jobs)

    @property
    def threshold(self) -> int:
        """The last level at which a swap may begin: one generation before it fits no more."""
        return self.refuse - self.fresh_peak - self.growth * self.jobs_meanwhile - max(self.growth, self.jump)

    @property
    def due(self) -> int:
        """The level at which a swap should begin: the last one, or where assets have become too small."""
        return self.threshold if self.faded is None else min(self.threshold, self.faded_at)

    @property
    def faded_at(self) -> int:
        """Where assets have become so small that another life earns more than it costs."""
        way = 1.0 if self.faded is None else self.faded.way
        return self.rest + math.floor(way * (self.refuse - self.rest))

    @property
    def due_ratio(self) -> float:
        return self.due / self.limit

    @property
    def half_way(self) -> float:
        """Half of the way from a fresh process at rest to where a swap is due."""
        return self.rest + (self.due - self.rest) / 2

    @property
    def swap_pays(self) -> bool:
        """Whether the device loses less by swaps than by replacements, for each generation made.

        A swap is the cheaper act, and the one that is due sooner: it must begin while two processes fit. A
        life makes generations from its rest to the threshold and during the swap; one that is replaced makes
        them up to the refusing level. Half a generation more in both cases, for where the last one ends. That
        the worker stays in service is worth ``IN_SERVICE`` of the device's time.
        """
        if self.freed < FREED_LEAST:
            return False
        if self.growth <= 0:
            return True
        if self.faded is not None and self.due < self.threshold:
            return self.faded.swap
        swapped = (self.threshold - self.rest) / self.growth + self.jobs_meanwhile + 0.5
        replaced = (self.refuse - self.rest) / self.growth + 0.5
        if swapped <= 0 or replaced <= 0:
            return False
        more = self.swap_cost / swapped - self.start_seconds / replaced
        return more <= IN_SERVICE * self.job_seconds

    def by_name(self) -> Mapping[str, int]:
        """The terms in bytes, as they are exported."""
        return {
            "fresh_peak": self.fresh_peak,
            "fresh_rest": self.rest,
            "growth": self.growth,
            "threshold": max(0, self.due),
        }


def no_room(terms: Terms, used: int) -> str | None:
    """Why a swap does not fit at ``used`` bytes of the container; None where it does."""
    if terms.threshold <= terms.rest:
        return (
            f"a fresh process needs {_mib(terms.fresh_peak)} and starts at {_mib(terms.rest)}, a swap would "
            f"be due at {_mib(terms.threshold)} already"
        )
    need = used + terms.fresh_peak + terms.growth * terms.jobs_meanwhile
    if need > terms.refuse:
        return f"{_mib(need)} would be needed, and the guard refuses from {_mib(terms.refuse)} on"
    free, device_need = terms.device_free, terms.device_need
    if free is not None and device_need is not None and free < device_need:
        return f"the device has {_mib(free)} free, a fresh process needs {_mib(device_need)}"
    return None


def not_worth_it(terms: Terms, used: int) -> str | None:
    """Why no swap should begin at ``used`` bytes for the sake of memory; None where one should."""
    if terms.freed < FREED_LEAST:
        return f"the end of a model process gives back {terms.freed:.0%} of what has been added"
    if terms.faded is not None and not terms.swap_pays:
        return f"assets get smaller as memory fills: replacements at {_mib(terms.due)} leave more of them"
    if not terms.swap_pays:
        return (
            f"with {_mib(terms.growth)} a generation, replacements at {_mib(terms.refuse)} cost less than "
            f"swaps at {_mib(terms.threshold)}"
        )
    return no_room(terms, used)


def too_small(terms: Terms, used: int) -> str | None:
    """Why the model process should be replaced at ``used`` bytes for the sake of its assets, or None."""
    faded = terms.faded
    if faded is None or faded.swap or terms.freed < FREED_LEAST or used < terms.faded_at:
        return None
    return f"assets get smaller as memory fills, and a replacement pays from {_mib(terms.faded_at)} on"


def job_must_wait(terms: Terms, used: int, fresh_now: int) -> bool:
    """While two live: whether one more generation would take what the fresh process still needs."""
    return used + terms.growth > terms.refuse - max(0, terms.fresh_peak - fresh_now)


def turn_seconds(job_seconds: float, needed: float, left: float) -> float:
    """How long a fresh process holds the device between two jobs, to have it for ``needed`` seconds.

    As short as may be, and as long as it takes to be through within ``left`` seconds, but no longer than a
    job: then turns and jobs alternate. ``needed`` infinite: not known yet.
    """
    if math.isinf(needed):
        return ASKED_SHARE * job_seconds
    even = job_seconds * needed / (left - needed) if left > needed else job_seconds
    return min(job_seconds, max(ASKED_SHARE * job_seconds, even))


@dataclass(slots=True)
class Measures:
    """Collects the terms. ``None`` everywhere until the first process has started."""

    fresh_peak: int | None = None
    rest: int | None = None
    device_need: int | None = None
    start_seconds: float | None = None
    canary_seconds: float | None = None
    warm_up_held: float = math.inf
    canary_held: float = math.inf
    """Seconds for which they held the device, at their quickest, without waiting for their turns."""
    quickest_start: float = math.inf
    swaps: deque[float] = field(default_factory=lambda: deque(maxlen=SWAPS_KEPT))
    growths: deque[int] = field(default_factory=lambda: deque(maxlen=GROWTHS_KEPT))
    gaps: deque[float] = field(default_factory=lambda: deque(maxlen=GAPS_KEPT))
    freed: float = 1.0
    fading: Fading = field(default_factory=Fading)
    _last: int | None = None
    _service_rest: int | None = None
    _service_added: int | None = None

    def started(self, peak: int, seconds: float) -> None:
        """A process has become ready; the largest peak and the latest time count."""
        self.fresh_peak = max(peak, self.fresh_peak or 0)
        self.start_seconds = seconds
        self.quickest_start = min(self.quickest_start, seconds)

    def held(self, *, warm_up: float = math.inf, canary: float = math.inf) -> None:
        """For how long the device was held; every start and every canary tells, not swaps alone."""
        self.warm_up_held = min(self.warm_up_held, warm_up)
        self.canary_held = min(self.canary_held, canary)

    @property
    def device_seconds(self) -> float:
        """The part of a start that needs the device; without a canary yet, that of its warm-up."""
        return self.warm_up_held + (0.0 if math.isinf(self.canary_held) else self.canary_held)

    def swapped(self, seconds: float, device_seconds: float, waited_seconds: float) -> None:
        """A swap is over. What counts is how long one in a hurry takes: its turns alternate with jobs."""
        self.swaps.append(seconds - max(0.0, waited_seconds - device_seconds))

    def room_to_be_gentle(self, terms: Terms, used: int) -> bool:
        """Whether the old process may make all the jobs that fit between short turns of the fresh one."""
        if terms.job_seconds <= 0:
            return True
        more = math.ceil(terms.device_seconds / (GENTLE_SHARE * terms.job_seconds))
        return used + terms.fresh_peak + terms.growth * (terms.jobs_meanwhile + more) <= terms.refuse

    def at_rest(self, used: int, service: int | None = None) -> None:
        """One fresh process at rest: the reading that later ones are compared with.

        How fast it will grow is first taken from the lives before it. ``service`` is what the service's own
        process holds of ``used``, where that is known.
        """
        if self.rest is not None and self._last is not None:
            added = self._last - self.rest
            if added > TELLING_GROWTHS * self.growth > 0:
                self.freed = (self._last - used) / added
        self.rest, self._last = used, None
        self._service_rest, self._service_added = service, None

    def after_job(self, used: int, service: int | None = None) -> None:
        """The container's level between two jobs; the first one fills caches and tells no growth."""
        if self._last is not None:
            self.growths.append(used - self._last)
        self._last = used
        if service is not None and self._service_rest is not None:
            self._service_added = service - self._service_rest

    @property
    def service_share(self) -> float:
        """Share of what was added that the service's own process holds; 0 where that is not known."""
        if self.rest is None or self._last is None or self._service_added is None:
            return 0.0
        added = self._last - self.rest
        return max(0.0, self._service_added / added) if added > TELLING_GROWTHS * self.growth > 0 else 0.0

    @property
    def freeable(self) -> float:
        """Share of what was added that the model process's end will give back.

        Known from the last life's end, and sooner where it is the service's own process that has grown.
        """
        return min(self.freed, 1.0 - self.service_share)

    def had_no_work(self, seconds: float) -> None:
        """Between two jobs of a life, while it could have taken one."""
        self.gaps.append(seconds)

    @property
    def idle_seconds(self) -> float:
        """Between two jobs, because there was no work."""
        return statistics.fmean(self.gaps) if self.gaps else 0.0

    def made(self, gaussians: int, used: int, refuse: int) -> None:
        """A job's asset and the container's level with it; the guard refuses from ``refuse`` bytes on."""
        if self.rest is not None and refuse > self.rest:
            self.fading.add((used - self.rest) / (refuse - self.rest), gaussians)

    def _faded(self, terms: Terms) -> Best | None:
        whole = terms.refuse - terms.rest
        shares = self.fading.shares() if min(terms.growth, terms.job_seconds, whole) > 0 else None
        if shares is None:
            return None
        costs = Costs(
            job_seconds=terms.job_seconds,
            job_way=terms.growth / whole,
            beside_way=terms.fresh_peak / whole,
            jobs_meanwhile=terms.jobs_meanwhile,
            swap_seconds=terms.swap_cost,
            replace_seconds=terms.start_seconds,
            idle_seconds=terms.idle_seconds,
        )
        return best(shares, costs)

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
        found = Terms(
            limit,
            refuse_ratio,
            self.fresh_peak,
            self.rest,
            self.growth,
            seconds,
            job,
            self.device_need,
            device_free,
            self.quickest_start,
            min(self.device_seconds, self.quickest_start),
            max(0, *self.growths) if self.growths else 0,
            self.freeable,
            self.idle_seconds,
            self.service_share,
        )
        return replace(found, faded=self._faded(found))


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
