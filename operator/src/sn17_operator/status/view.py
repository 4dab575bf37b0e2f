"""What a status is made of, and the words for one worker that all its parts share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sn17_contract.metrics import DegradedReason

from sn17_operator.api import Spec
from sn17_operator.core.evidence import self_doubt
from sn17_operator.core.model import Fleet, Health, Monitoring, Stage, Worker
from sn17_operator.core.plan import Plan
from sn17_operator.ports import Missing, Ratios

CORDON_STAGES = (Stage.CORDON, Stage.CLEANUP, Stage.CANARY)


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
    previous: Mapping[str, Any]


def is_cordoned(worker: Worker) -> bool:
    intent = worker.pod.intent
    return worker.pod.user_cordon is not None or (intent is not None and intent.action in CORDON_STAGES)


def is_recycling(worker: Worker) -> bool:
    intent = worker.pod.intent
    return intent is not None and intent.action not in CORDON_STAGES


def awaited(view: View) -> int:
    present = {w.pod.uid for w in view.fleet.workers if w.pod.intent is not None}
    return sum(1 for e in view.plan.evictions if not e.settled and e.uid not in present)


def state_of(worker: Worker) -> str:
    """One word about one worker, also the ``state`` label of the workers gauge."""
    if is_recycling(worker):
        return "Recycling"
    if is_cordoned(worker):
        return "Cordoned"
    return str(Health.DEGRADED if is_degraded(worker) else worker.verdict.health)


def is_degraded(worker: Worker) -> bool:
    """It breaches a rule, or says itself that it cannot be trusted; only the first is acted on."""
    return worker.verdict.health is Health.DEGRADED or self_doubt(worker.evidence) is not None


def doubt_word(doubt: DegradedReason) -> str:
    return doubt.value.title().replace("_", "")


def names_of(workers: Iterable[Worker]) -> str:
    names = sorted(w.pod.name for w in workers)
    if not names:
        return "a replacement is awaited"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
