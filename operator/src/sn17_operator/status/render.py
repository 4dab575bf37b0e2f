"""What a person sees: the status of an SN17Miner as a function of fleet and plan.

Coarse, sorted and bounded, so that it changes when something happened and not at every tick; live values are
in Prometheus. Text columns hold ``-`` where nothing is known, never 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sn17_operator.api import Mode
from sn17_operator.core.evidence import self_doubt
from sn17_operator.core.model import Health, Outcome, Phase, RuleClass, Signal, Worker
from sn17_operator.core.plan import Reason
from sn17_operator.ports import Ratios
from sn17_operator.status.codec import eviction_to_dict, parse_time, rfc3339
from sn17_operator.status.conditions import Condition, conditions, enough, merge, metrics_available
from sn17_operator.status.view import (
    View,
    awaited,
    doubt_word,
    is_cordoned,
    is_degraded,
    is_recycling,
    names_of,
    state_of,
)

LISTED_WORKERS = 100
UNKNOWN = "-"


def render(view: View, now: float) -> dict[str, Any]:
    """The whole status, ready to be written."""
    word, message = summary(view)
    ready = Condition("Ready", "True" if enough(view) else "False", word, message)
    workers = sorted(_entries(view), key=lambda entry: (entry["state"], entry["name"]))
    capacity = view.plan.capacity
    return {
        "observedGeneration": view.generation,
        "status": word,
        "message": message,
        "ready": f"{capacity.available}/{capacity.expected}" if view.target_found else UNKNOWN,
        "cordoned": sum(is_cordoned(w) for w in view.fleet.workers),
        "recycling": sum(is_recycling(w) for w in view.fleet.workers) + awaited(view),
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
        "conditions": merge(
            [ready, *conditions(view)], view.previous.get("conditions") or (), view.generation, now
        ),
    }


def summary(view: View) -> tuple[str, str]:
    """The most useful word about the fleet, and one sentence."""
    fleet, capacity = view.fleet, view.plan.capacity
    running = [w for w in fleet.workers if w.pod.phase is Phase.RUNNING]
    stages = Counter(w.pod.intent.action for w in fleet.workers if w.pod.intent is not None)
    failed = [w for w in fleet.workers if w.pod.history.failed is not None]
    degraded = [w for w in fleet.workers if is_degraded(w)]
    metrics = metrics_available(view)
    counts = f"{capacity.available} of {capacity.expected} workers in service"
    if view.missing is not None:
        return view.missing.word, view.missing.message
    if not view.target_found:
        name = view.spec.target_ref.name
        return Reason.TARGET_NOT_FOUND, f"there is no Deployment {name} in this namespace"
    if fleet.expected == 0:
        return "ScaledToZero", "the Deployment asks for no workers"
    recycling = awaited(view) + sum(is_recycling(w) for w in fleet.workers)
    if not running and not recycling:
        return "NoWorkers", no_workers(fleet.workers)
    if fleet.paused is not None:
        return Reason.PAUSED, f"paused: {fleet.paused or 'no reason given'}"
    if metrics.status == "False":
        return Reason.METRICS_UNAVAILABLE, metrics.message
    if failed:
        pod = failed[0].pod
        advice = f"look at its node and its log, then: sn17 recycle {pod.name}"
        return Reason.REMEDIATION_FAILED, f"{pod.name}: {pod.history.failed}; {advice}"
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
        return "Recycling", f"{counts}; " + names_of(w for w in fleet.workers if is_recycling(w))
    if degraded or stages:
        return "Degraded", f"{counts}; " + names_of(
            w for w in fleet.workers if is_degraded(w) or w.pod.intent is not None
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


# --- columns and counters -----------------------------------------------------------------------------


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


def _reasons(worker: Worker) -> list[str]:
    found = [f.rule for f in worker.verdict.breaches]
    if (doubt := self_doubt(worker.evidence)) is not None:
        found.append(doubt_word(doubt))
    if worker.pod.history.failed is not None:
        found.append(str(Reason.REMEDIATION_FAILED))
    if worker.verdict.health is Health.UNKNOWN:
        found += sorted({f.rule for f in worker.verdict.findings if f.outcome is Outcome.UNKNOWN})
    if worker.verdict.health is Health.STARTING and worker.pod.phase_reason:
        found.append(worker.pod.phase_reason)
    return found
