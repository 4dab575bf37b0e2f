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
    kept: bool = False
    container: str = ""
    life: str = ""
    degraded_since: float | None = None


class Tracker:
    """One note per pod, brought up to date with the pod whenever it is looked at."""

    def __init__(self) -> None:
        self._tracker: dict[str, PodRecord] = {}

    def of(self, pod: Pod) -> PodRecord:
        """The pod's note; what was about an earlier container or intent is gone from it."""
        note = self._tracker.setdefault(pod.uid, PodRecord())
        if note.container != pod.container_id:
            note.container, note.degraded_since, note.kept = pod.container_id, None, False
        if not pod.kept_by_person:
            note.kept = False
        key = (pod.intent.action, pod.intent.at) if pod.intent is not None else ("", 0.0)
        if note.key != key:
            note.key, note.acknowledged = key, set()
            note.canary = note.recycle = note.progress = None
            if pod.intent is None:
                note.leased, note.drained, note.asked_at = False, False, None
        return note

    def keep(self, uids: Set[str]) -> None:
        """Forget all other pods."""
        for uid in self._tracker.keys() - uids:
            del self._tracker[uid]

    def worker(self, pod: Pod, evidence: Evidence, verdict: Verdict, now: float) -> Worker:
        """The pod with all that is known about it."""
        note = self.of(pod)
        if evidence.life_id is not None and note.life != evidence.life_id:
            note.life, note.degraded_since = evidence.life_id, None
        if verdict.health is not Health.DEGRADED:
            note.degraded_since = None
        elif note.degraded_since is None:
            note.degraded_since = now
        return Worker(
            pod,
            evidence,
            verdict,
            frozenset(note.acknowledged),
            note.canary,
            note.degraded_since,
            note.leased,
            note.drained,
            note.asked_at,
            note.kept,
            note.recycle,
            note.progress,
        )
