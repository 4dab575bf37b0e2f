"""What a person sees: the status of an SN17Miner as a function of fleet and plan.

Coarse, sorted and bounded, so that it changes when something happened and not at every tick; live values are
in Prometheus. Text columns hold ``-`` where nothing is known, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sn17_operator.api import Mode
from sn17_operator.core.model import Health, Outcome, Phase, RuleClass, Worker
from sn17_operator.core.plan import Reason
from sn17_operator.core.readings import Signal
from sn17_operator.status.conditions import Claim, conditions, enough, merge, metrics_available
from sn17_operator.status.resource import (
    LISTED_WORKERS,
    UNKNOWN,
    ConditionStatus,
    ConditionType,
    DeviceEntry,
    EvictionRecord,
    State,
    Status,
    Summary,
    WorkerEntry,
)
from sn17_operator.status.view import (
    Ratios,
    View,
    awaited,
    doubt_word,
    is_cordoned,
    is_degraded,
    is_recycling,
    names_of,
    state_of,
)

NO_RATIOS = Ratios(None, None)


def render(view: View, now: float) -> Status:
    """The whole status, ready to be written."""
    word, message = summary(view)
    holds = ConditionStatus.TRUE if enough(view) else ConditionStatus.FALSE
    ready = Claim(ConditionType.READY, holds, word, message)
    workers = sorted(_entries(view), key=lambda entry: (entry.state, entry.name))
    capacity = view.plan.capacity
    hour, hours = (view.ratios.get(window, NO_RATIOS) for window in ("1h", "4h"))
    previous = view.previous
    ooms, last_oom = _oom_kills(view)
    recycled, evicted, swapped = _recycled(view), _evicted(view), _swapped(view)
    return Status(
        observed_generation=view.generation,
        status=word,
        message=message,
        ready=f"{capacity.available}/{capacity.expected}" if view.target_found else UNKNOWN,
        replicas=view.made,
        selector=view.selector,
        cordoned=sum(is_cordoned(w) for w in view.fleet.workers),
        recycling=sum(is_recycling(w) for w in view.fleet.workers) + awaited(view),
        gaussians=_gaussians(view.fleet.workers),
        memory=_memory(view.fleet.workers),
        success=_percent(hour.success),
        yielded=_percent(hour.yielded),
        success_4h=_percent(hours.success),
        yielded_4h=_percent(hours.yielded),
        budget=capacity.budget,
        unavailable=capacity.unavailable,
        # Totals only grow. What was counted last is kept in the status itself, so nothing counts twice.
        oom_kills=(previous.oom_kills or 0) + ooms,
        last_oom_time=last_oom,
        recycles=(previous.recycles or 0) + len(recycled),
        evicted=(previous.evicted or 0) + len(evicted),
        swaps=(previous.swaps or 0) + len(swapped),
        last_swap_time=now if swapped else previous.last_swap_time,
        last_recycle_time=now if recycled or evicted else previous.last_recycle_time,
        last_storm_time=view.plan.short_circuit_at,
        workers=tuple(workers[:LISTED_WORKERS]),
        workers_omitted=max(0, len(workers) - LISTED_WORKERS),
        evictions=tuple(EvictionRecord.of(e) for e in view.plan.evictions),
        devices=tuple(DeviceEntry.of(trial) for trial in view.plan.trials),
        conditions=merge([ready, *conditions(view)], previous, view.generation, now),
    )


def summary(view: View) -> tuple[Summary, str]:
    """The most useful word about the fleet, and one sentence."""
    fleet, capacity = view.fleet, view.plan.capacity
    running = [w for w in fleet.workers if w.pod.phase is Phase.RUNNING]
    held = [w for w in fleet.workers if w.pod.held]
    failed = [w for w in fleet.workers if w.pod.history.failed is not None]
    degraded = [w for w in fleet.workers if is_degraded(w)]
    metrics = metrics_available(view)
    counts = f"{capacity.available} of {capacity.expected} workers in service"
    if view.missing is not None:
        return view.missing.word, view.missing.message
    if not view.target_found:
        name = view.spec.target_ref.name
        return Summary.TARGET_NOT_FOUND, f"there is no Deployment {name} in this namespace"
    if fleet.expected == 0:
        return Summary.SCALED_TO_ZERO, "the Deployment asks for no workers"
    recycling = awaited(view) + sum(is_recycling(w) for w in fleet.workers)
    if not running and not recycling:
        return Summary.NO_WORKERS, no_workers(fleet.workers)
    if fleet.paused is not None:
        return Summary.PAUSED, f"paused: {fleet.paused or 'no reason given'}"
    if metrics.status is ConditionStatus.FALSE:
        return Summary.METRICS_UNAVAILABLE, metrics.message
    if failed:
        pod = failed[0].pod
        advice = f"look at its node and its log, then: sn17 recycle {pod.name}"
        return Summary.REMEDIATION_FAILED, f"{pod.name}: {pod.history.failed}; {advice}"
    if capacity.short_circuit:
        return Summary.TOO_MANY_UNHEALTHY, capacity.short_circuit_text
    if fleet.rollout is not None and fleet.rollout.in_progress:
        return (
            Summary.ROLLOUT_IN_PROGRESS,
            f"{fleet.rollout.updated} of {fleet.rollout.replicas} workers updated",
        )
    if view.spec.mode is Mode.OBSERVE:
        return Summary.OBSERVE_ONLY, f"{counts}; {len(degraded)} degraded, nothing is done about them"
    if recycling:
        return Summary.RECYCLING, f"{counts}; " + names_of(w for w in fleet.workers if is_recycling(w))
    if degraded or held:
        return Summary.DEGRADED, f"{counts}; " + names_of(
            w for w in fleet.workers if is_degraded(w) or w.pod.held
        )
    if capacity.available < capacity.expected:
        return Summary.STARTING, counts
    return Summary.HEALTHY, counts


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


def _percent(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0%}"


def _oom_kills(view: View) -> tuple[int, float | None]:
    """Containers killed for memory that are not counted yet, and the time of the last one."""
    last = view.previous.last_oom_time
    ends = [
        w.pod.last_termination.at
        for w in view.fleet.workers
        if w.pod.last_termination is not None and w.pod.last_termination.reason == "OOMKilled"
    ]
    new = [at for at in ends if last is None or at > last]
    return len(new), max(new, default=last)


def _evicted(view: View) -> set[str]:
    return {e.uid for e in view.plan.evictions} - {e.uid for e in view.previous.evictions or ()}


def _recycled(view: View) -> set[str]:
    """Workers whose recycle is not counted yet: noted at this tick, or by an operator that was killed before
    it could write the status. Times are stored in whole seconds.
    """
    since = view.previous.last_recycle_time or 0.0
    histories = {w.pod.uid: w.pod.history for w in view.fleet.workers}
    found = {
        s.uid
        for s in view.plan.steps
        if s.reason in (Reason.WORKER_RECYCLED, Reason.WORKER_REPLACED) and histories.get(s.uid) == s.history
    }
    for worker in view.fleet.workers if view.previous.status is not None else ():
        history = worker.pod.history
        own = history.recycled_container == worker.pod.container_id and history.recycled_at is not None
        if own and int(history.recycled_at or 0) > int(since):
            found.add(worker.pod.uid)
    return found


def _swapped(view: View) -> set[str]:
    """Workers whose swap is not counted yet, as with recycles."""
    since = view.previous.last_swap_time
    if view.previous.status is None:
        return set()
    ends = {w.pod.uid: w.pod.history.swapped_at for w in view.fleet.workers}
    return {uid for uid, at in ends.items() if at is not None and (since is None or int(at) > int(since))}


def _entries(view: View) -> Iterable[WorkerEntry]:
    blocked = {b.uid: b for b in view.plan.blocked}
    for worker in view.fleet.workers:
        pod, intent, held = worker.pod, worker.pod.intent, blocked.get(worker.pod.uid)
        state = state_of(worker)
        if state in (State.HEALTHY, State.IDLE) and held is None and intent is None:
            continue
        message = _message(worker)
        yield WorkerEntry(
            name=pod.name,
            node=pod.node or None,
            state=state,
            reasons=tuple(dict.fromkeys(_reasons(worker))),
            stage=intent.action if intent is not None else None,
            since=intent.cordoned_at if intent is not None else None,
            message=None if message is None else message[:256],
            held_back_by=held.reason if held is not None else None,
        )


def _message(worker: Worker) -> str | None:
    pod = worker.pod
    if pod.malformed:
        return f"unreadable annotations: {', '.join(pod.malformed)}"
    if pod.intent is not None:
        return pod.intent.reason
    if pod.user_cordon is not None:
        return f"cordoned by a person: {pod.user_cordon.reason or 'no reason given'}"
    if worker.evidence.doubt is not None and not worker.verdict.breaches:
        return "the worker itself says so: its log and GET /v1/worker tell more"
    if not worker.verdict.findings and worker.verdict.message:
        return worker.verdict.message
    return None


def _reasons(worker: Worker) -> Iterable[str]:
    yield from (f.rule for f in worker.verdict.breaches)
    if (doubt := worker.evidence.doubt) is not None:
        yield doubt_word(doubt)
    if worker.pod.history.failed is not None:
        yield Reason.REMEDIATION_FAILED
    if worker.verdict.health is Health.UNKNOWN:
        yield from sorted({f.rule for f in worker.verdict.findings if f.outcome is Outcome.UNKNOWN})
    if worker.verdict.health is Health.STARTING and worker.pod.phase_reason:
        yield worker.pod.phase_reason
