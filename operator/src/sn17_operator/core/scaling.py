"""How many workers there shall be, and which of them go first where there are to be fewer. Pure.

Kubernetes' own order for a ReplicaSet that shrinks is: pods without a node, pending, not ready, and then by
the annotation ``controller.kubernetes.io/pod-deletion-cost``, lowest first. What verdicts know goes there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sn17_operator.api import ReplicasOwner, Spec
from sn17_operator.core.model import Fleet, Health, Worker
from sn17_operator.core.readings import Signal

DEGRADED_COST: Final = -100
CORDONED_COST: Final = -50
IDLE_COST: Final = -10
OWN_COSTS: Final = frozenset({DEGRADED_COST, CORDONED_COST, IDLE_COST})
"""Any other cost was set by a person, and stays."""
MOST_COSTS: Final = 32
"""Written in one tick; what is left is written at the next."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A pod whose deletion cost changes; None removes it."""

    uid: str
    cost: int | None


@dataclass(frozen=True, slots=True)
class Scaling:
    """What to write: costs first, so that they stand when the number shrinks.

    ``adopt``: the target's count, which becomes that of an SN17Miner that names none yet. ``replicas``: the
    count that the target is to have. ``ignored``: a count that the SN17Miner names and does not own.
    """

    costs: tuple[Cost, ...] = ()
    adopt: int | None = None
    replicas: int | None = None
    ignored: int | None = None


def scaling(spec: Spec, fleet: Fleet) -> Scaling:
    """What differs from how it should be; nothing does in almost every tick."""
    owns = spec.scale.owner is ReplicasOwner.SN17MINER
    wanted = spec.replicas if owns and spec.replicas is not None else fleet.expected
    rolling = fleet.rollout is not None and fleet.rollout.in_progress
    costs: tuple[Cost, ...] = ()
    if spec.scale.deletion_cost:
        live = [worker for worker in fleet.workers if not worker.pod.deleting]
        surplus = 0 if rolling else max(0, len(live) - wanted)
        costs = tuple(_changes(live, surplus))[:MOST_COSTS]
    return Scaling(
        costs,
        adopt=fleet.expected if owns and spec.replicas is None else None,
        replicas=wanted if wanted != fleet.expected else None,
        ignored=spec.replicas if not owns else None,
    )


def _changes(workers: list[Worker], surplus: int) -> Iterable[Cost]:
    costs = {worker.pod.uid: _by_verdict(worker) for worker in workers}
    first = sum(1 for worker in workers if costs[worker.pod.uid] < 0 or not worker.pod.ready)
    idle = [w for w in workers if costs[w.pod.uid] == 0 and w.pod.ready and _without_work(w)]
    # Those that were chosen before stay chosen.
    idle.sort(key=lambda worker: (worker.pod.deletion_cost != IDLE_COST, worker.pod.name))
    costs.update({worker.pod.uid: IDLE_COST for worker in idle[: max(0, surplus - first)]})
    for worker in workers:
        present, cost = worker.pod.deletion_cost, costs[worker.pod.uid] or None
        if present != cost and (present is None or present in OWN_COSTS):
            yield Cost(worker.pod.uid, cost)


def _by_verdict(worker: Worker) -> int:
    """The cost that does not depend on how many are to go. What is not known is no reason to go first."""
    pod = worker.pod
    if pod.skip is not None:
        return 0
    doubtful = worker.verdict.health is Health.DEGRADED or worker.evidence.doubt is not None
    if doubtful or pod.held or pod.history.failed is not None:
        return DEGRADED_COST
    return CORDONED_COST if pod.user_cordon is not None else 0


def _without_work(worker: Worker) -> bool:
    jobs = worker.evidence.series(Signal.JOBS)
    return jobs is not None and jobs.value == 0
