"""What a status is made of, and the words for one worker that all its parts share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sn17_contract.metrics import DegradedReason

from sn17_operator.api import Spec
from sn17_operator.core.model import Fleet, Health, Stage, Worker
from sn17_operator.core.plan import Plan
from sn17_operator.core.readings import Monitoring
from sn17_operator.status.resource import State, Status, Summary

CORDON_STAGES = (Stage.CORDON, Stage.CLEANUP, Stage.CANARY)


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a person must supply before the release can work."""

    word: Summary
    message: str


@dataclass(frozen=True, slots=True)
class Ratios:
    """Success and yield of a miner over a window, or None without finished tasks."""

    success: float | None
    yielded: float | None


@dataclass(frozen=True, slots=True)
class View:
    """All that a status is made of."""

    spec: Spec
    generation: int
    fleet: Fleet
    plan: Plan
    monitoring: Monitoring
    target_found: bool
    missing: Missing | None
    ratios: Mapping[str, Ratios]
    """By window: ``1h``, ``4h``."""
    previous: Status
    made: int | None = None
    """Pods that the Deployment has."""
    selector: str | None = None


def is_cordoned(worker: Worker) -> bool:
    intent = worker.pod.intent
    return worker.pod.user_cordon is not None or (intent is not None and intent.action in CORDON_STAGES)


def is_recycling(worker: Worker) -> bool:
    intent = worker.pod.intent
    return intent is not None and worker.pod.held and intent.action not in CORDON_STAGES


def awaited(view: View) -> int:
    present = {w.pod.uid for w in view.fleet.workers if w.pod.intent is not None}
    return sum(1 for e in view.plan.evictions if not e.settled and e.uid not in present)


def state_of(worker: Worker) -> State:
    """One word about one worker."""
    if is_recycling(worker):
        return State.RECYCLING
    if is_cordoned(worker):
        return State.CORDONED
    return State.DEGRADED if is_degraded(worker) else State(worker.verdict.health)


def is_degraded(worker: Worker) -> bool:
    """It breaches a rule, or says itself that it cannot be trusted; only the first is acted on."""
    return worker.verdict.health is Health.DEGRADED or worker.evidence.doubt is not None


def doubt_word(doubt: DegradedReason) -> str:
    return doubt.value.title().replace("_", "")


def names_of(workers: Iterable[Worker]) -> str:
    names = sorted(w.pod.name for w in workers)
    if not names:
        return "a replacement is awaited"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
