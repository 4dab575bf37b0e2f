"""What this process knows about each pod beyond what is written down. Losing it costs time, never safety."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from sn17_operator.core.model import CanaryResult, Health, Pod, RecycleResult, Stage, Verdict, Worker
from sn17_operator.core.readings import Evidence


@dataclass(slots=True)
class PodRecord:
    """What was done to, or learnt about, one pod."""

    key: tuple[str, float] = ("", 0.0)
    """Action and time of the intent that the rest is about."""
    acknowledged: set[Stage] = field(default_factory=set)
    canary: CanaryResult | None = None
    recycle: RecycleResult | None = None
    progress: RecycleResult | None = None
    leased: bool = False
    drained: bool = False
    asked_at: float | None = None
    cordon_confirmed: bool = False
    container: str = ""
    life: str = ""
    degraded_since: float | None = None


class Tracker:
    """One record per pod, brought up to date with the pod whenever it is looked at."""

    def __init__(self) -> None:
        self._records: dict[str, PodRecord] = {}

    def of(self, pod: Pod) -> PodRecord:
        """The pod's record; what was about an earlier container or intent is gone from it."""
        record = self._records.setdefault(pod.uid, PodRecord())
        if record.container != pod.container_id:
            record.container, record.degraded_since, record.cordon_confirmed = pod.container_id, None, False
        if not pod.kept_by_person:
            record.cordon_confirmed = False
        key = (pod.intent.action, pod.intent.at) if pod.intent is not None else ("", 0.0)
        if record.key != key:
            record.key, record.acknowledged = key, set()
            record.canary = record.recycle = record.progress = None
            if pod.intent is None:
                record.leased, record.drained, record.asked_at = False, False, None
        return record

    def keep(self, uids: Set[str]) -> None:
        """Forget all other pods."""
        for uid in self._records.keys() - uids:
            del self._records[uid]

    def worker(self, pod: Pod, evidence: Evidence, verdict: Verdict, now: float) -> Worker:
        """The pod with all that is known about it."""
        record = self.of(pod)
        if evidence.life_id is not None and record.life != evidence.life_id:
            record.life, record.degraded_since = evidence.life_id, None
        if verdict.health is not Health.DEGRADED:
            record.degraded_since = None
        elif record.degraded_since is None:
            record.degraded_since = now
        return Worker(
            pod,
            evidence,
            verdict,
            frozenset(record.acknowledged),
            record.canary,
            record.degraded_since,
            record.leased,
            record.drained,
            record.asked_at,
            record.cordon_confirmed,
            record.recycle,
            record.progress,
        )
