"""Why a worker is judged as it is: per rule the query, value, sample age, mark and dwell left, and what
comes next.
"""

from __future__ import annotations

from typing import Any

from sn17_operator.controller import Snapshot
from sn17_operator.core.model import Worker
from sn17_operator.status.codec import rfc3339
from sn17_operator.status.view import state_of


def explain_pod(snapshot: Snapshot, name: str) -> dict[str, Any] | None:
    """Everything about one worker at the last tick; None when it is not one of this miner's."""
    worker = next((w for w in snapshot.fleet.workers if w.pod.name == name), None)
    return None if worker is None else explain(snapshot, worker)


def explain(snapshot: Snapshot, worker: Worker) -> dict[str, Any]:
    pod, plan, capacity = worker.pod, snapshot.plan, snapshot.plan.capacity
    queries = snapshot.measurement.monitoring.queries
    step = next((s for s in plan.steps if s.uid == pod.uid), None)
    held = next((b for b in plan.blocked if b.uid == pod.uid), None)
    if held is not None:
        coming = f"held back by {held.reason}: {held.message}"
    elif step is not None:
        coming = f"{step.act}: {step.message}"
    elif pod.intent is not None:
        coming = f"waits in stage {pod.intent.action}: {pod.intent.reason}"
    else:
        coming = "nothing"
    return {
        "miner": snapshot.miner.name,
        "pod": pod.name,
        "node": pod.node,
        "at": rfc3339(snapshot.at),
        "bootId": worker.evidence.boot_id,
        "containerId": pod.container_id,
        "state": state_of(worker),
        "verdict": str(worker.verdict.health),
        "message": worker.verdict.message,
        "rules": [
            {
                "rule": finding.rule,
                "outcome": str(finding.outcome),
                "message": finding.message,
                "value": finding.value,
                "mark": finding.mark,
                "sampleAgeSeconds": None if finding.sample_age is None else round(finding.sample_age, 1),
                "dwellLeftSeconds": round(finding.dwell_left, 1),
                "queries": [queries[s] for s in finding.signals if s in queries],
            }
            for finding in worker.verdict.findings
        ],
        "intent": None if pod.intent is None else {"action": str(pod.intent.action), "rule": pod.intent.rule},
        "budget": {
            "expected": capacity.expected,
            "available": capacity.available,
            "unavailable": capacity.unavailable,
            "inFlight": capacity.in_flight,
            "maxUnavailable": capacity.budget,
            "qualityVerdicts": capacity.sick,
            "maxUnhealthy": capacity.sick_allowed,
        },
        "next": coming,
    }
