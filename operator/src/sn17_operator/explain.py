"""Why a worker is judged as it is: per rule the query, value, sample age, threshold and dwell left, and what
comes next.
"""

from __future__ import annotations

from sn17_contract.explain import ExplainedBudget, ExplainedIntent, ExplainedRule, Explanation

from sn17_operator.controller import Snapshot
from sn17_operator.core.model import Worker
from sn17_operator.status.resource import rfc3339
from sn17_operator.status.view import state_of


def explain_pod(snapshot: Snapshot, name: str) -> Explanation | None:
    """Everything about one worker at the last tick; None when it is not one of this miner's."""
    worker = next((w for w in snapshot.fleet.workers if w.pod.name == name), None)
    return None if worker is None else explain(snapshot, worker)


def explain(snapshot: Snapshot, worker: Worker) -> Explanation:
    pod, capacity = worker.pod, snapshot.plan.capacity
    queries = snapshot.measurement.monitoring.queries
    return Explanation(
        miner=snapshot.miner.name,
        pod=pod.name,
        node=pod.node,
        at=rfc3339(snapshot.at),
        boot_id=worker.evidence.boot_id,
        life_id=worker.evidence.life_id,
        container_id=pod.container_id,
        state=state_of(worker),
        verdict=worker.verdict.health,
        message=worker.verdict.message,
        strategy=snapshot.miner.spec.strategy,
        rules=tuple(
            ExplainedRule(
                rule=finding.rule,
                outcome=finding.outcome,
                message=finding.message,
                value=finding.value,
                threshold=finding.threshold,
                sample_age_seconds=None if finding.sample_age is None else round(finding.sample_age, 1),
                dwell_left_seconds=round(finding.dwell_left, 1),
                queries=tuple(queries[s] for s in finding.signals if s in queries),
            )
            for finding in worker.verdict.findings
        ),
        intent=None
        if pod.intent is None
        else ExplainedIntent(action=pod.intent.action, rule=pod.intent.rule),
        budget=ExplainedBudget(
            expected=capacity.expected,
            available=capacity.available,
            unavailable=capacity.unavailable,
            in_flight=capacity.in_flight,
            max_unavailable=capacity.budget,
            quality_verdicts=capacity.unhealthy,
            max_unhealthy=capacity.unhealthy_allowed,
        ),
        next=_coming(snapshot, worker),
    )


def _coming(snapshot: Snapshot, worker: Worker) -> str:
    """What happens next to the worker, and why."""
    uid, intent = worker.pod.uid, worker.pod.intent
    held = next((b for b in snapshot.plan.blocked if b.uid == uid), None)
    if held is not None:
        return f"held back by {held.reason}: {held.message}"
    step = next((s for s in snapshot.plan.steps if s.uid == uid), None)
    if step is not None:
        return f"{step.act}: {step.message}"
    return "nothing" if intent is None else f"waits in stage {intent.action}: {intent.reason}"
