"""What is seen of one worker whose remediation is under way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sn17_operator.api import Spec
from sn17_operator.core.context import trailing_run
from sn17_operator.core.model import Eviction, Fleet, Health, History, Intent, Stage, Worker
from sn17_operator.core.readings import Series, Signal

SETTLE_SECONDS = 5.0
SCRAPED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Observation:
    """One worker that has an intent, at one tick."""

    spec: Spec
    fleet: Fleet
    worker: Worker
    intent: Intent
    short_circuit: bool
    now: float

    @property
    def restarted(self) -> bool:
        """The incarnation that the intent is about has ended."""
        boot = self.worker.evidence.boot_id
        return self.replaced or (
            boot is not None and self.intent.boot_id is not None and boot != self.intent.boot_id
        )

    @property
    def replaced(self) -> bool:
        """The pod has another container than the one the intent is about."""
        return bool(self.worker.pod.container_id) and self.worker.pod.container_id != self.intent.container_id

    @property
    def reborn(self) -> str | None:
        """The life that has taken the place of the one that the intent is about; None: none has."""
        life = self.worker.evidence.life_id
        known = life is not None and self.intent.life_id is not None
        return life if known and life != self.intent.life_id else None

    @property
    def drained(self) -> bool:
        """No job is in flight: the worker said so to the lease, or a scrape after the cordon shows it."""
        if self.worker.drained:
            return True
        jobs = self.worker.evidence.series(Signal.JOBS)
        return jobs is not None and jobs.at > self.intent.cordoned_at + SETTLE_SECONDS and jobs.value <= 0

    @property
    def leased(self) -> bool:
        """The worker holds the operator's lease: it takes no new job."""
        draining = self.worker.evidence.series(Signal.DRAINING_OPERATOR)
        return self.worker.leased or (
            draining is not None and draining.at > self.intent.cordoned_at and draining.value > 0
        )

    @property
    def scraped(self) -> bool:
        """The worker's port answers Prometheus, so silence towards the operator does not mean that it
        hangs.
        """
        up = self.worker.evidence.series(Signal.UP)
        return up is not None and up.value > 0 and self.now - up.at < SCRAPED_SECONDS

    def ratios(self) -> Series | None:
        memory = self.worker.evidence.series(Signal.MEMORY)
        limit = self.worker.evidence.series(Signal.LIMIT)
        if memory is None or limit is None or not limit.value > 0:
            return None
        return Series(tuple((at, value / limit.value) for at, value in memory.samples))

    def cleared(self) -> bool:
        """Memory has been below the clear threshold, all the time since the cordon or the clean-up, for the
        clear time.
        """
        rule, ratios = self.spec.rules.memory, self.ratios()
        if ratios is None:
            return False
        since = self.intent.at if self.intent.action is Stage.CLEANUP else self.intent.cordoned_at
        start = trailing_run(ratios, lambda v: v < rule.clear_percent / 100, 2 * SETTLE_SECONDS + 60, since)
        return start is not None and ratios.at - start >= rule.clear_for_seconds

    def leftover(self) -> float | None:
        """Share of the limit that the pod's memory exceeds the container's by, if that is too much."""
        series = [self.worker.evidence.series(s) for s in (Signal.POD_MEMORY, Signal.MEMORY, Signal.LIMIT)]
        pod, own, limit = series
        started = self.worker.pod.started_at or self.now
        if pod is None or own is None or limit is None or not limit.value > 0 or pod.at < started:
            return None
        share = (pod.value - own.value) / limit.value
        return share if share > self.spec.recycle.leftover_percent / 100 else None

    def known(self) -> bool:
        return self.worker.verdict.health not in (Health.UNKNOWN, Health.STARTING)

    def memory_text(self, what: str) -> str:
        ratios = self.ratios()
        return f"unreclaimable memory {what}: {ratios.value:.0%} of the limit" if ratios else f"memory {what}"

    def rested(self, rule: str, seconds: float) -> History:
        """The history with a rule at rest for this life."""
        pod, life = self.worker.pod, self.worker.evidence.life_id
        resting = pod.history.resting(pod.container_id, life, self.now)
        return replace(
            pod.history,
            rest={**resting, rule: self.now + seconds},
            rest_container=pod.container_id,
            rest_life=life,
        )

    def start_canary_passed(self) -> bool:
        """True for a canary within tolerance, and for a worker that exports none; NaN means it is still to
        run.
        """
        reading = self.worker.evidence.series(Signal.CANARY)
        if reading is None:
            return True
        return reading.value <= self.spec.rules.canary.drift_percent / 100


def chain(evictions: tuple[Eviction, ...], uid: str, since: float) -> int:
    """Evictions since a time that led, one after the other and without a recovery, to this pod."""
    by_replacement = {
        e.replacement_uid: e
        for e in evictions
        if e.replacement_uid is not None and e.at >= since and not e.recovered
    }
    length = 0
    while (record := by_replacement.pop(uid, None)) is not None:
        length, uid = length + 1, record.uid
    return length
