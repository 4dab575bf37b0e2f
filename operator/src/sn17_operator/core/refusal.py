"""What forbids to start on a worker, said in one word and one sentence."""

from __future__ import annotations

from sn17_operator.api import Mode, Spec
from sn17_operator.core.devices import not_helped
from sn17_operator.core.model import Finding, Fleet, RuleClass, RuleName, Worker
from sn17_operator.core.plan import Capacity, Reason


def refusal_of(
    spec: Spec,
    fleet: Fleet,
    capacity: Capacity,
    worker: Worker,
    finding: Finding,
    now: float,
    *,
    swap: bool,
) -> tuple[Reason, str] | None:
    """What forbids to start on this worker, budget apart."""
    pod, rules = worker.pod, spec.recycle
    requested = finding.rule_class is RuleClass.REQUEST
    if fleet.paused is not None:
        return Reason.PAUSED, f"paused: {fleet.paused or 'no reason given'}"
    if spec.mode is Mode.OBSERVE:
        return Reason.OBSERVE_ONLY, f"mode is Observe: would {'swap' if swap else 'cordon'}"
    if spec.mode is Mode.CORDON and swap:
        return Reason.RECYCLE_DISABLED, "mode is Cordon: would swap"
    if fleet.rollout is not None and fleet.rollout.in_progress:
        return Reason.ROLLOUT_IN_PROGRESS, (
            f"{fleet.rollout.updated} of {fleet.rollout.replicas} workers are of the current revision"
        )
    if requested:
        # Without its identity the worker could not be asked to exit, only be evicted.
        if worker.evidence.boot_id is None:
            return Reason.METRICS_UNAVAILABLE, f"waits for its metrics: {worker.verdict.message}"
        return None
    if pod.skip is not None:
        return (
            Reason.SKIP_REQUESTED,
            f"remediation of this pod is to be skipped: {pod.skip or 'no reason given'}",
        )
    if pod.kept_by_person:
        return Reason.USER_CORDONED, "a person has cordoned this worker"
    if pod.history.failed is not None:
        return Reason.REMEDIATION_FAILED, f"left to a person: {pod.history.failed}"
    if finding.rule_class is RuleClass.QUALITY:
        if capacity.short_circuit:
            return Reason.TOO_MANY_UNHEALTHY, capacity.short_circuit_text
        if fleet.short_circuit_at is not None and now - fleet.short_circuit_at < rules.storm_cooldown_seconds:
            left = rules.storm_cooldown_seconds - (now - fleet.short_circuit_at)
            return (
                Reason.STORM_COOLDOWN,
                f"too many were unhealthy a short while ago, waits {left:.0f} s more",
            )
    if finding.rule == RuleName.MODEL_FAILING and capacity.failing > capacity.unhealthy_allowed:
        return Reason.TOO_MANY_UNHEALTHY, capacity.failing_text
    if not_helped(worker, finding.rule):
        return Reason.DEVICE_SUSPECT, "left to a person: another pod on this device has not helped"
    if pod.history.retry_at is not None and now < pod.history.retry_at:
        return Reason.ADMIN_UNAVAILABLE, (
            "its admin endpoint did not answer: check the token and the way to its ops port; tries again "
            f"in {pod.history.retry_at - now:.0f} s"
        )
    if pod.history.recycled_at is not None and finding.rule != RuleName.MEMORY_EMERGENCY and not swap:
        left = rules.cooldown_seconds - (now - pod.history.recycled_at)
        if left > 0:
            return Reason.COOLDOWN, f"recycled a short while ago, waits {left:.0f} s more"
    return None
