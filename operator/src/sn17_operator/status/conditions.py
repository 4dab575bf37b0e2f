"""The conditions of an SN17Miner, each one function of the view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sn17_operator.api import RuleAction, Spec
from sn17_operator.core.devices import suspicion
from sn17_operator.core.memory_rules import NO_POD_MEMORY
from sn17_operator.core.model import Health, Outcome, Phase, RuleClass, RuleName, Worker
from sn17_operator.core.plan import FLEET_WIDE, Blocked, Reason
from sn17_operator.status.resource import Condition, ConditionStatus, ConditionType, Status
from sn17_operator.status.view import View, doubt_word, names_of


@dataclass(frozen=True, slots=True)
class Claim:
    """What a condition says now."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str


def conditions(view: View) -> list[Claim]:
    """All of them, always in the same order, except Ready, whose reason is the word of the summary."""
    return [
        metrics_available(view),
        remediation_allowed(view),
        degraded_condition(view),
        paused(view),
        node_suspect(view),
        device_suspect(view),
    ]


def enough(view: View) -> bool:
    capacity = view.plan.capacity
    if not view.target_found or view.missing is not None:
        return False
    return capacity.expected == 0 or (capacity.available > 0 and capacity.unavailable <= capacity.budget)


def metrics_available(view: View) -> Claim:
    running = [w for w in view.fleet.workers if w.pod.phase is Phase.RUNNING]
    if view.monitoring.failed:
        signal, why = next(iter(sorted(view.monitoring.failed.items())))
        return Claim(
            ConditionType.METRICS_AVAILABLE,
            ConditionStatus.FALSE,
            "QueryFailed",
            f"{signal}: {why}; nothing is done",
        )
    unknown = [w for w in running if w.verdict.health is Health.UNKNOWN]
    if running and len(unknown) == len(running):
        why = unknown[0].verdict.message
        return Claim(
            ConditionType.METRICS_AVAILABLE,
            ConditionStatus.FALSE,
            "NoEvidence",
            f"no worker can be judged: {why}",
        )
    # Said in the message alone: nothing turns by it, so there is no Event, and the other rules go on.
    silent = view.monitoring.pod_memory is False and view.spec.rules.memory.action is not RuleAction.OFF
    also = f"; {NO_POD_MEMORY}" if silent else ""
    if unknown:
        names = names_of(unknown)
        return Claim(
            ConditionType.METRICS_AVAILABLE,
            ConditionStatus.TRUE,
            "Partial",
            f"{len(unknown)} cannot be judged: {names}{also}",
        )
    if not running:
        return Claim(
            ConditionType.METRICS_AVAILABLE, ConditionStatus.UNKNOWN, "NoWorkers", "no worker is running"
        )
    return Claim(
        ConditionType.METRICS_AVAILABLE,
        ConditionStatus.TRUE,
        "Fresh",
        f"every worker that is past its start has fresh samples{also}",
    )


def remediation_allowed(view: View) -> Claim:
    blocked = view.plan.blocked
    if view.fleet.paused is not None:
        text = f"paused: {view.fleet.paused or 'no reason given'}"
        return Claim(ConditionType.REMEDIATION_ALLOWED, ConditionStatus.FALSE, Reason.PAUSED, text)
    if view.plan.capacity.short_circuit:
        text = view.plan.capacity.short_circuit_text
        return Claim(
            ConditionType.REMEDIATION_ALLOWED, ConditionStatus.FALSE, Reason.TOO_MANY_UNHEALTHY, text
        )
    for reason in (*FLEET_WIDE, *Reason):
        if held := [b for b in blocked if b.reason is reason]:
            text = f"held back: {_blocked_names(held)}"
            return Claim(ConditionType.REMEDIATION_ALLOWED, ConditionStatus.FALSE, reason, text)
    return Claim(
        ConditionType.REMEDIATION_ALLOWED, ConditionStatus.TRUE, "WithinBudget", "nothing is held back"
    )


def _blocked_names(blocked: Sequence[Blocked]) -> str:
    names = sorted(f"{b.pod} ({b.cause})" if b.cause else b.pod for b in blocked)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def degraded_condition(view: View) -> Claim:
    causes: Counter[str] = Counter()
    for worker in view.fleet.workers:
        if worker.pod.history.failed is not None:
            causes[Reason.REMEDIATION_FAILED] += 1
        for finding in worker.verdict.breaches:
            causes[finding.rule] += 1
        if not worker.verdict.breaches and (doubt := worker.evidence.doubt) is not None:
            causes[doubt_word(doubt)] += 1
    if not causes:
        return Claim(
            ConditionType.DEGRADED,
            ConditionStatus.FALSE,
            "NoneDegraded",
            "no worker breaches a rule, none says that it is degraded",
        )
    text = ", ".join(f"{rule}: {count}" for rule, count in sorted(causes.items()))
    first = Reason.REMEDIATION_FAILED if causes[Reason.REMEDIATION_FAILED] else sorted(causes)[0]
    return Claim(ConditionType.DEGRADED, ConditionStatus.TRUE, str(first), text)


def paused(view: View) -> Claim:
    if view.fleet.paused is None:
        return Claim(ConditionType.PAUSED, ConditionStatus.FALSE, "NotPaused", "")
    return Claim(
        ConditionType.PAUSED, ConditionStatus.TRUE, "PausedByUser", view.fleet.paused or "no reason given"
    )


LISTED_DEVICES = 4
DEVICE_RULES = (RuleName.GPU_ERROR, RuleName.DEVICE_UNHEALTHY)
"""One breach is enough to point at a node."""


def suspect_nodes(spec: Spec, workers: Sequence[Worker]) -> dict[str, str]:
    """Nodes whose workers point at the node: device errors, or several with a quality or stall verdict.

    Memory does not count: equally loaded workers leak alike wherever they run. A node is not suspect when as
    large a share of the other workers is unhealthy too: then the cause is not the node.
    """
    nodes: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.pod.node is not None:
            nodes.setdefault(worker.pod.node, []).append(worker)
    unhealthy = {w.pod.uid for w in workers if _unhealthy(w)}
    found: dict[str, str] = {}
    for node, here in sorted(nodes.items()):
        errors = [
            w
            for w in here
            if any(f.rule in DEVICE_RULES and f.outcome is Outcome.BREACH for f in w.verdict.findings)
        ]
        affected = [w for w in here if w.pod.uid in unhealthy]
        elsewhere = [w for w in workers if w.pod.node != node]
        share_elsewhere = (
            sum(w.pod.uid in unhealthy for w in elsewhere) / len(elsewhere) if elsewhere else 0.0
        )
        if errors:
            found[node] = f"device errors: {names_of(errors)}"
        elif (
            len(affected) >= spec.node_suspect.minimum_workers and len(affected) / len(here) > share_elsewhere
        ):
            found[node] = f"{len(affected)} of its {len(here)} workers are degraded: {names_of(affected)}"
    return found


def _unhealthy(worker: Worker) -> bool:
    kinds = (RuleClass.QUALITY, RuleClass.STALL)
    return worker.pod.history.failed is not None or any(
        f.rule_class in kinds for f in worker.verdict.breaches
    )


def node_suspect(view: View) -> Claim:
    found = suspect_nodes(view.spec, view.fleet.workers)
    if not found:
        return Claim(ConditionType.NODE_SUSPECT, ConditionStatus.FALSE, "NoneSuspect", "")
    return Claim(
        ConditionType.NODE_SUSPECT,
        ConditionStatus.TRUE,
        "SickWorkers",
        "; ".join(f"{n}: {why}" for n, why in found.items()),
    )


def device_suspect(view: View) -> Claim:
    """Devices that another system or a person should look at: nothing is done to nodes here."""
    told: dict[str, list[str]] = {
        Reason.DEVICE_SUSPECT: [suspicion(trial) for _, trial in sorted(view.plan.suspects.items())]
    }
    told |= {RuleName.DEVICE_UNHEALTHY: [], RuleName.CANARY_DISAGREES: []}
    for worker in view.fleet.workers:
        for finding in worker.verdict.findings:
            if finding.outcome is Outcome.BREACH and finding.rule in told:
                where = f"{worker.pod.name} on {worker.pod.node or 'its node'}"
                told[finding.rule].append(f"{where}: {finding.message}")
    first = next((reason for reason, texts in told.items() if texts), None)
    if first is None:
        return Claim(ConditionType.DEVICE_SUSPECT, ConditionStatus.FALSE, "NoneSuspect", "")
    texts = [text for found in told.values() for text in found]
    more = f"; and {len(texts) - LISTED_DEVICES} more" if len(texts) > LISTED_DEVICES else ""
    text = "; ".join(texts[:LISTED_DEVICES]) + more
    return Claim(ConditionType.DEVICE_SUSPECT, ConditionStatus.TRUE, first, text)


def merge(claims: Sequence[Claim], previous: Status, generation: int, now: float) -> tuple[Condition, ...]:
    """Conditions as the API has them; the transition time moves only when the status flips."""
    merged = []
    for claim in claims:
        old = previous.condition(claim.type)
        merged.append(
            Condition(
                type=claim.type,
                status=claim.status,
                reason=str(claim.reason),
                message=claim.message[:1024],
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old and old.status is claim.status else now,
            )
        )
    return tuple(merged)
