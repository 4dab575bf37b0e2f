"""What a person sees: the status of an SN17Miner as a function of fleet and plan.

Coarse, sorted and bounded, so that it changes when something happened and not at every tick; live values are
in Prometheus. Text columns hold ``-`` where nothing is known, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sn17_service.contract import DegradedReason

from .api import Mode, Spec
from .evidence import self_doubt
from .model import (
    Eviction,
    Fleet,
    Health,
    Monitoring,
    Outcome,
    Phase,
    RuleClass,
    Signal,
    Stage,
    Worker,
)
from .policy import GPU_ERROR
from .ports import Missing, Ratios
from .steps import Blocked, Plan, Reason

LISTED_WORKERS = 100
UNKNOWN = "-"
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


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; ``True`` of a negative one (Degraded, Paused, NodeSuspect) is the bad news."""

    type: str
    status: str
    reason: str
    message: str


def render(view: View, now: float) -> dict[str, Any]:
    """The whole status, ready to be written."""
    conditions = [
        _metrics_available(view),
        _remediation_allowed(view),
        _degraded(view),
        _paused(view),
        _node_suspect(view),
    ]
    word, message = summary(view)
    ready = "True" if _enough(view) else "False"
    conditions.insert(0, Condition("Ready", ready, word, message))
    workers = sorted(_entries(view), key=lambda entry: (entry["state"], entry["name"]))
    capacity = view.plan.capacity
    return {
        "observedGeneration": view.generation,
        "status": word,
        "message": message,
        "ready": f"{capacity.available}/{capacity.expected}" if view.target_found else UNKNOWN,
        "cordoned": sum(_is_cordoned(w) for w in view.fleet.workers),
        "recycling": sum(_is_recycling(w) for w in view.fleet.workers) + _awaited(view),
        "gaussians": _gaussians(view.fleet.workers),
        "memory": _memory(view.fleet.workers),
        "success": _percent(view.ratios.get("1h"), "success"),
        "yield": _percent(view.ratios.get("1h"), "yielded"),
        "success4h": _percent(view.ratios.get("4h"), "success"),
        "yield4h": _percent(view.ratios.get("4h"), "yielded"),
        "budget": capacity.budget,
        "unavailable": capacity.unavailable,
        **_counters(view, now),
        "evictions": [eviction_to_dict(e) for e in view.plan.evictions],
        **({"lastStormTime": rfc3339(view.plan.storm_at)} if view.plan.storm_at is not None else {}),
        "workers": workers[:LISTED_WORKERS],
        "workersOmitted": max(0, len(workers) - LISTED_WORKERS),
        "conditions": merge(conditions, view.previous.get("conditions") or (), view.generation, now),
    }


# --- the single word ----------------------------------------------------------------------------------


def summary(view: View) -> tuple[str, str]:
    """The most useful word about the fleet, and one sentence."""
    fleet, capacity = view.fleet, view.plan.capacity
    running = [w for w in fleet.workers if w.pod.phase is Phase.RUNNING]
    stages = Counter(w.pod.intent.action for w in fleet.workers if w.pod.intent is not None)
    failed = [w for w in fleet.workers if w.pod.history.failed is not None]
    degraded = [w for w in fleet.workers if _is_degraded(w)]
    metrics = _metrics_available(view)
    counts = f"{capacity.available} of {capacity.expected} workers in service"
    if view.missing is not None:
        return view.missing.word, view.missing.message
    if not view.target_found:
        name = view.spec.target_ref.name
        return Reason.TARGET_NOT_FOUND, f"there is no Deployment {name} in this namespace"
    if fleet.expected == 0:
        return "ScaledToZero", "the Deployment asks for no workers"
    recycling = _awaited(view) + sum(_is_recycling(w) for w in fleet.workers)
    if not running and not recycling:
        return "NoWorkers", no_workers(fleet.workers)
    if fleet.paused is not None:
        return Reason.PAUSED, f"paused: {fleet.paused or 'no reason given'}"
    if metrics.status == "False":
        return Reason.METRICS_UNAVAILABLE, metrics.message
    if failed:
        return Reason.REMEDIATION_FAILED, f"{failed[0].pod.name}: {failed[0].pod.history.failed}"
    if capacity.storm:
        return Reason.TOO_MANY_UNHEALTHY, capacity.storm_text
    if fleet.rollout is not None and fleet.rollout.in_progress:
        return (
            Reason.ROLLOUT_IN_PROGRESS,
            f"{fleet.rollout.updated} of {fleet.rollout.replicas} workers updated",
        )
    if view.spec.mode is Mode.OBSERVE:
        return Reason.OBSERVE_ONLY, f"{counts}; {len(degraded)} degraded, nothing is done about them"
    if recycling:
        return "Recycling", f"{counts}; " + _names(w for w in fleet.workers if _is_recycling(w))
    if degraded or stages:
        return "Degraded", f"{counts}; " + _names(
            w for w in fleet.workers if _is_degraded(w) or w.pod.intent is not None
        )
    if capacity.available < capacity.expected:
        return "Starting", counts
    return "Healthy", counts


def no_workers(workers: Sequence[Worker]) -> str:
    """Why no worker runs, in the words of the scheduler or of kubelet."""
    told = [w.pod for w in workers if w.pod.phase_message or w.pod.phase_reason]
    if not workers:
        return "the Deployment has no pods yet"
    if not told:
        return "no worker is running yet"
    return f"{told[0].name}: {told[0].phase_reason}: {told[0].phase_message}".rstrip(": ")


def _names(workers: Iterable[Worker]) -> str:
    names = sorted(w.pod.name for w in workers)
    if not names:
        return "a replacement is awaited"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# --- conditions ---------------------------------------------------------------------------------------


def _enough(view: View) -> bool:
    capacity = view.plan.capacity
    if not view.target_found or view.missing is not None:
        return False
    return capacity.expected == 0 or (capacity.available > 0 and capacity.unavailable <= capacity.budget)


def _metrics_available(view: View) -> Condition:
    running = [w for w in view.fleet.workers if w.pod.phase is Phase.RUNNING]
    if view.monitoring.failed:
        signal, why = next(iter(sorted(view.monitoring.failed.items())))
        return Condition("MetricsAvailable", "False", "QueryFailed", f"{signal}: {why}; nothing is done")
    unknown = [w for w in running if w.verdict.health is Health.UNKNOWN]
    if running and len(unknown) == len(running):
        why = unknown[0].verdict.message
        return Condition("MetricsAvailable", "False", "NoEvidence", f"no worker can be judged: {why}")
    if unknown:
        names = _names(unknown)
        return Condition("MetricsAvailable", "True", "Partial", f"{len(unknown)} cannot be judged: {names}")
    if not running:
        return Condition("MetricsAvailable", "Unknown", "NoWorkers", "no worker is running")
    return Condition(
        "MetricsAvailable", "True", "Fresh", "every worker that is past its start has fresh samples"
    )


FLEET_WIDE = (
    Reason.PAUSED,
    Reason.OBSERVE_ONLY,
    Reason.ROLLOUT_IN_PROGRESS,
    Reason.TOO_MANY_UNHEALTHY,
    Reason.STORM_COOLDOWN,
    Reason.BUDGET_EXHAUSTED,
)


def _remediation_allowed(view: View) -> Condition:
    blocked = view.plan.blocked
    if view.fleet.paused is not None:
        text = f"paused: {view.fleet.paused or 'no reason given'}"
        return Condition("RemediationAllowed", "False", Reason.PAUSED, text)
    if view.plan.capacity.storm:
        text = view.plan.capacity.storm_text
        return Condition("RemediationAllowed", "False", Reason.TOO_MANY_UNHEALTHY, text)
    for reason in (*FLEET_WIDE, *Reason):
        if held := [b for b in blocked if b.reason is reason]:
            text = f"held back: {_blocked_names(held)}"
            return Condition("RemediationAllowed", "False", reason, text)
    return Condition("RemediationAllowed", "True", "WithinBudget", "nothing is held back")


def _blocked_names(blocked: Sequence[Blocked]) -> str:
    names = sorted(f"{b.pod} ({b.cause})" if b.cause else b.pod for b in blocked)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _degraded(view: View) -> Condition:
    causes: Counter[str] = Counter()
    for worker in view.fleet.workers:
        if worker.pod.history.failed is not None:
            causes[Reason.REMEDIATION_FAILED] += 1
        for finding in worker.verdict.breaches:
            causes[finding.rule] += 1
        if not worker.verdict.breaches and (doubt := self_doubt(worker.evidence)) is not None:
            causes[_doubt_word(doubt)] += 1
    if not causes:
        return Condition(
            "Degraded", "False", "NoneDegraded", "no worker breaches a rule, none says that it is degraded"
        )
    text = ", ".join(f"{rule}: {count}" for rule, count in sorted(causes.items()))
    first = Reason.REMEDIATION_FAILED if causes[Reason.REMEDIATION_FAILED] else sorted(causes)[0]
    return Condition("Degraded", "True", str(first), text)


def _paused(view: View) -> Condition:
    if view.fleet.paused is None:
        return Condition("Paused", "False", "NotPaused", "")
    return Condition("Paused", "True", "PausedByUser", view.fleet.paused or "no reason given")


def suspect_nodes(spec: Spec, workers: Sequence[Worker]) -> dict[str, str]:
    """Nodes whose workers point at the node: device errors, or several that are sick in quality or stalled.

    Memory does not count: equally loaded workers leak alike wherever they run. A node is not suspect when as
    large a share of the other workers is sick too: then the cause is not the node.
    """
    nodes: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.pod.node is not None:
            nodes.setdefault(worker.pod.node, []).append(worker)
    sick = {w.pod.uid for w in workers if _sick(w)}
    found: dict[str, str] = {}
    for node, here in sorted(nodes.items()):
        errors = [
            w
            for w in here
            if any(f.rule == GPU_ERROR and f.outcome is Outcome.BREACH for f in w.verdict.findings)
        ]
        ill = [w for w in here if w.pod.uid in sick]
        elsewhere = [w for w in workers if w.pod.node != node]
        share_elsewhere = sum(w.pod.uid in sick for w in elsewhere) / len(elsewhere) if elsewhere else 0.0
        if errors:
            found[node] = f"device errors: {_names(errors)}"
        elif len(ill) >= spec.node_suspect.minimum_workers and len(ill) / len(here) > share_elsewhere:
            found[node] = f"{len(ill)} of its {len(here)} workers are sick: {_names(ill)}"
    return found


def _sick(worker: Worker) -> bool:
    kinds = (RuleClass.QUALITY, RuleClass.STALL)
    return worker.pod.history.failed is not None or any(
        f.rule_class in kinds for f in worker.verdict.breaches
    )


def _node_suspect(view: View) -> Condition:
    found = suspect_nodes(view.spec, view.fleet.workers)
    if not found:
        return Condition("NodeSuspect", "False", "NoneSuspect", "")
    return Condition(
        "NodeSuspect", "True", "SickWorkers", "; ".join(f"{n}: {why}" for n, why in found.items())
    )


def merge(
    conditions: Sequence[Condition], previous: Iterable[Mapping[str, Any]], generation: int, now: float
) -> list[dict[str, Any]]:
    """Conditions as the API has them; the transition time moves only when the status flips."""
    known = {c.get("type"): c for c in previous}
    merged = []
    for condition in conditions:
        old = known.get(condition.type)
        kept = old.get("lastTransitionTime") if old and old.get("status") == condition.status else None
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": str(condition.reason),
                "message": condition.message[:1024],
                "observedGeneration": generation,
                "lastTransitionTime": kept or rfc3339(now),
            }
        )
    return merged


# --- columns and counters -----------------------------------------------------------------------------


def _is_cordoned(worker: Worker) -> bool:
    intent = worker.pod.intent
    return worker.pod.user_cordon is not None or (intent is not None and intent.action in CORDON_STAGES)


def _is_recycling(worker: Worker) -> bool:
    intent = worker.pod.intent
    return intent is not None and intent.action not in CORDON_STAGES


def _awaited(view: View) -> int:
    present = {w.pod.uid for w in view.fleet.workers if w.pod.intent is not None}
    return sum(1 for e in view.plan.evictions if not e.settled and e.uid not in present)


def _gaussians(workers: Sequence[Worker]) -> str:
    means = [
        series.value
        for w in workers
        if w.verdict.health is not Health.UNKNOWN
        and (count := w.evidence.series(Signal.GENERATIONS)) is not None
        and count.value > 0
        and (series := w.evidence.series(Signal.GAUSSIANS)) is not None
        and series.value == series.value
    ]
    if not means:
        return UNKNOWN
    mean = sum(means) / len(means)
    step = 10_000 if mean >= 100_000 else 1_000
    return f"{round(mean / step) * step // 1000:.0f}k"


def _memory(workers: Sequence[Worker]) -> str:
    ratios = [
        finding.value
        for w in workers
        for finding in w.verdict.findings
        if finding.rule_class is RuleClass.MEMORY and finding.value is not None
    ]
    return f"{round(max(ratios) * 20) * 5}%" if ratios else UNKNOWN


def _percent(ratios: Ratios | None, which: str) -> str:
    value = getattr(ratios, which) if ratios is not None else None
    return UNKNOWN if value is None else f"{value:.0%}"


def _counters(view: View, now: float) -> dict[str, Any]:
    """Totals that only grow. What was counted last is kept in the status itself, so nothing counts twice."""
    previous = view.previous
    last_oom = parse_time(previous.get("lastOOMTime"))
    ends = [
        w.pod.last_termination.at
        for w in view.fleet.workers
        if w.pod.last_termination is not None and w.pod.last_termination.reason == "OOMKilled"
    ]
    new = [at for at in ends if last_oom is None or at > last_oom]
    latest = max([*new, *([last_oom] if last_oom else [])], default=None)
    recycles = _recycled(view, parse_time(previous.get("lastRecycleTime")) or 0.0)
    evicted = {e.uid for e in view.plan.evictions} - {e.get("uid") for e in previous.get("evictions") or ()}
    last_recycle = rfc3339(now) if recycles or evicted else previous.get("lastRecycleTime")
    return {
        "oomKills": int(previous.get("oomKills") or 0) + len(new),
        **({"lastOOMTime": rfc3339(latest)} if latest is not None else {}),
        "recycles": int(previous.get("recycles") or 0) + len(recycles),
        "evicted": int(previous.get("evicted") or 0) + len(evicted),
        **({"lastRecycleTime": last_recycle} if last_recycle else {}),
    }


def _recycled(view: View, since: float) -> set[str]:
    """Workers whose recycle is not counted yet: noted at this tick, or by an operator that was killed before
    it could write the status. Times are stored in whole seconds.
    """
    histories = {w.pod.uid: w.pod.history for w in view.fleet.workers}
    found = {
        s.uid
        for s in view.plan.steps
        if s.reason is Reason.WORKER_RECYCLED and histories.get(s.uid) == s.history
    }
    for worker in view.fleet.workers if view.previous else ():
        history = worker.pod.history
        own = history.recycled_container == worker.pod.container_id and history.recycled_at is not None
        if own and int(history.recycled_at or 0) > int(since):
            found.add(worker.pod.uid)
    return found


def _entries(view: View) -> Iterable[dict[str, Any]]:
    blocked = {b.uid: b for b in view.plan.blocked}
    for worker in view.fleet.workers:
        pod, intent, held = worker.pod, worker.pod.intent, blocked.get(worker.pod.uid)
        state = state_of(worker)
        if state in (Health.HEALTHY, Health.IDLE) and held is None:
            continue
        entry: dict[str, Any] = {"name": pod.name, "state": state, "reasons": _reasons(worker)}
        if pod.node:
            entry["node"] = pod.node
        if intent is not None:
            entry.update(
                stage=str(intent.action), since=rfc3339(intent.cordoned_at), message=intent.reason[:256]
            )
        elif pod.user_cordon is not None:
            entry["message"] = f"cordoned by a person: {pod.user_cordon.reason or 'no reason given'}"[:256]
        elif self_doubt(worker.evidence) is not None and not worker.verdict.breaches:
            entry["message"] = "the worker itself says so: its log and GET /v1/worker tell more"
        elif not worker.verdict.findings and worker.verdict.message:
            entry["message"] = worker.verdict.message[:256]
        if held is not None:
            entry["heldBackBy"] = str(held.reason)
        if pod.malformed:
            entry["message"] = f"unreadable annotations: {', '.join(pod.malformed)}"
        yield entry


def state_of(worker: Worker) -> str:
    """One word about one worker, also the ``state`` label of the workers gauge."""
    if _is_recycling(worker):
        return "Recycling"
    if _is_cordoned(worker):
        return "Cordoned"
    return str(Health.DEGRADED if _is_degraded(worker) else worker.verdict.health)


def _is_degraded(worker: Worker) -> bool:
    """It breaches a rule, or says itself that it cannot be trusted; only the first is acted on."""
    return worker.verdict.health is Health.DEGRADED or self_doubt(worker.evidence) is not None


def _doubt_word(doubt: DegradedReason) -> str:
    return doubt.value.title().replace("_", "")


def _reasons(worker: Worker) -> list[str]:
    found = [f.rule for f in worker.verdict.breaches]
    if (doubt := self_doubt(worker.evidence)) is not None:
        found.append(_doubt_word(doubt))
    if worker.pod.history.failed is not None:
        found.append(str(Reason.REMEDIATION_FAILED))
    if worker.verdict.health is Health.UNKNOWN:
        found += sorted({f.rule for f in worker.verdict.findings if f.outcome is Outcome.UNKNOWN})
    if worker.verdict.health is Health.STARTING and worker.pod.phase_reason:
        found.append(worker.pod.phase_reason)
    return found


# --- writing ------------------------------------------------------------------------------------------

NUMBERS = ("gaussians", "memory", "success", "yield", "success4h", "yield4h")


def worth_writing(
    new: Mapping[str, Any], old: Mapping[str, Any], seconds_since: float, every: float = 30.0
) -> bool:
    """True when something happened, or when only figures moved and the last write is long enough ago."""

    def happened(status: Mapping[str, Any]) -> dict[str, Any]:
        kept = {
            k: v for k, v in status.items() if k not in (*NUMBERS, "message", "conditions", "lastStormTime")
        }
        kept["conditions"] = [
            {k: c.get(k) for k in ("type", "status", "reason", "observedGeneration")}
            for c in status.get("conditions") or ()
        ]
        return kept

    if dict(new) == dict(old):
        return False
    return happened(new) != happened(old) or seconds_since >= every


def flips(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Conditions that turned, as (reason, message, bad news); by the written status, so told once."""
    good = {"Ready": "True", "MetricsAvailable": "True", "RemediationAllowed": "True"}
    known = {c.get("type"): (c.get("status"), c.get("reason")) for c in old.get("conditions") or ()}
    told = []
    for condition in new.get("conditions") or ():
        kind, status, reason = condition["type"], condition["status"], condition["reason"]
        bad = status != good.get(kind, "False")
        before = known.get(kind)
        turned = before is None or before[0] != status or (bad and before[1] != reason)
        if kind == "Ready" or not turned or (before is None and not bad) or status == "Unknown":
            continue
        text = (
            f"{kind} is {status}: {condition['message']}" if condition["message"] else f"{kind} is {status}"
        )
        told.append((reason, text, bad))
    return told


def rfc3339(at: float) -> str:
    """Whole seconds, as the API writes times."""
    return datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def parse_time(text: Any) -> float | None:
    """Unix seconds of an RFC 3339 time, None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def eviction_to_dict(eviction: Eviction) -> dict[str, Any]:
    found: dict[str, Any] = {
        "uid": eviction.uid,
        "pod": eviction.pod,
        "reason": eviction.reason[:256],
        "time": rfc3339(eviction.at),
        "settled": eviction.settled,
    }
    if eviction.node:
        found["node"] = eviction.node
    if eviction.replacement_uid:
        found["replacementUID"] = eviction.replacement_uid
    return found


def evictions_from(status: Mapping[str, Any]) -> tuple[Eviction, ...]:
    """The evictions that a written status holds; unreadable entries are left out."""
    found = []
    for item in status.get("evictions") or ():
        at = parse_time(item.get("time"))
        if at is None or not item.get("uid"):
            continue
        record = Eviction(item["uid"], item.get("pod", ""), item.get("node"), item.get("reason", ""), at)
        found.append(
            replace(
                record, replacement_uid=item.get("replacementUID"), settled=bool(item.get("settled", False))
            )
        )
    return tuple(found)
