"""What to do this tick: remediations under way go on, new ones start within the budget, refusals are said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sn17_operator.api import Mode, Spec, scaled
from sn17_operator.core.devices import after_acts, hand_over, settle_trials, suspected, suspects
from sn17_operator.core.escalation import first_act
from sn17_operator.core.model import (
    Eviction,
    Finding,
    Fleet,
    Health,
    Intent,
    Outcome,
    Phase,
    RuleClass,
    RuleName,
    Stage,
    Worker,
)
from sn17_operator.core.plan import Act, Blocked, Capacity, Plan, Reason, Step
from sn17_operator.core.readings import Signal
from sn17_operator.core.refusal import refusal_of
from sn17_operator.core.remediation import Remediation

KEPT_EVICTIONS = 64


def plan(spec: Spec, fleet: Fleet, now: float) -> Plan:
    """Steps for one tick. Pure: the same fleet and time give the same plan."""
    before = fleet.evictions
    evictions = settle(spec, fleet, now)
    fleet = replace(fleet, evictions=evictions, trials=settle_trials(spec, fleet, now))
    found_suspect = suspects(spec, fleet)
    fleet = suspected(fleet, found_suspect)
    capacity = measure(spec, fleet)
    steps: list[Step] = []
    blocked: list[Blocked] = []
    for worker in fleet.workers:
        steps.extend(_user_cordon(worker))
        if worker.pod.intent is None:
            continue
        found = Remediation(spec, fleet, worker, worker.pod.intent, capacity.short_circuit, now).next()
        if isinstance(found, Step):
            steps.append(found)
        elif isinstance(found, Blocked):
            # It stays cordoned, so its lease must go on.
            blocked.append(found)
            steps.append(_renew(worker, worker.pod.intent, found.message))
    started, refused = _start(spec, fleet, capacity, now)
    short_circuit_at = now if capacity.short_circuit else fleet.short_circuit_at
    recorded = tuple(
        s.eviction for s in steps if s.eviction and all(e.uid != s.eviction.uid for e in evictions)
    )
    acts = hand_over(found_suspect, fleet, (*steps, *started))
    return Plan(
        acts,
        (*blocked, *refused),
        capacity,
        (*evictions, *recorded)[-KEPT_EVICTIONS:],
        short_circuit_at,
        tuple(_overdue(before, fleet, now)),
        after_acts(fleet, acts, now),
        found_suspect,
    )


def measure(spec: Spec, fleet: Fleet) -> Capacity:
    """Counts in units of the target's replicas, so that missing pods are unavailable too."""
    available = sum(_available(worker) for worker in fleet.workers)
    open_evictions = _open_evictions(fleet)
    # A worker whose breach rests counts too: a fresh process made the same there.
    unhealthy = sum(
        1
        for worker in fleet.workers
        if (worker.verdict.health is Health.DEGRADED and worker.verdict.breach_of(RuleClass.QUALITY))
        or any(
            f.outcome is Outcome.RESTING and f.rule_class is RuleClass.QUALITY
            for f in worker.verdict.findings
        )
    )
    return Capacity(
        expected=fleet.expected,
        available=available,
        unavailable=max(0, fleet.expected - available),
        in_flight=sum(1 for worker in fleet.workers if worker.pod.held) + open_evictions,
        budget=scaled(spec.max_unavailable, fleet.expected),
        unhealthy=unhealthy,
        unhealthy_allowed=scaled(spec.max_unhealthy, fleet.expected),
        failing=sum(
            worker.verdict.health is Health.DEGRADED
            and any(f.rule is RuleName.MODEL_FAILING for f in worker.verdict.breaches)
            for worker in fleet.workers
        ),
    )


def _available(worker: Worker) -> bool:
    pod = worker.pod
    return pod.ready and not pod.deleting and not pod.held and pod.user_cordon is None


def _open_evictions(fleet: Fleet) -> int:
    """Evicted pods whose replacement is still awaited; those that still exist are counted by their intent."""
    present = {worker.pod.uid for worker in fleet.workers if worker.pod.intent is not None}
    return sum(1 for e in fleet.evictions if not e.settled and e.uid not in present)


def settle(spec: Spec, fleet: Fleet, now: float) -> tuple[Eviction, ...]:
    """Match evicted pods with their replacements, in order of time, and close what is over."""
    workers = {worker.pod.uid: worker for worker in fleet.workers}
    evicted = {e.uid for e in fleet.evictions}
    claimed = {e.replacement_uid for e in fleet.evictions} | evicted
    newcomers = sorted(
        (w.pod for w in fleet.workers if w.pod.uid not in claimed and not w.pod.deleting),
        key=lambda pod: (pod.created_at, pod.uid),
    )
    settled: list[Eviction] = []
    for record in sorted(fleet.evictions, key=lambda e: e.at):
        if now - record.at > spec.recycle.eviction_window_seconds:
            continue
        old = workers.get(record.uid)
        replacement = workers.get(record.replacement_uid or "")
        lost = replacement is None or replacement.pod.deleting
        if not record.settled and lost and record.replacement_uid not in evicted:
            # Its node has died with it, or a person has deleted it: another one is made in its place.
            record = replace(record, replacement_uid=None)
        if record.replacement_uid is None and (old is None or old.pod.deleting):
            found = next((pod for pod in newcomers if pod.created_at >= record.at - 2), None)
            if found is not None:
                newcomers.remove(found)
                record = replace(record, replacement_uid=found.uid)
        replacement = workers.get(record.replacement_uid or "")
        ready = replacement is not None and replacement.pod.ready
        withdrawn = old is not None and old.pod.intent is None and not old.pod.deleting
        late = now - record.at > spec.recycle.replacement_timeout_seconds and not (old and old.pod.intent)
        if not record.settled and (ready or late or withdrawn):
            record = replace(record, settled=True)
        if replacement is not None and _grown_up(spec, replacement, now):
            record = replace(record, recovered=True)
        settled.append(record)
    return tuple(settled[-KEPT_EVICTIONS:])


def _grown_up(spec: Spec, worker: Worker, now: float) -> bool:
    """It is past the age at which a new breach means that the eviction before it changed nothing."""
    pod, healthy = worker.pod, worker.verdict.health in (Health.HEALTHY, Health.IDLE)
    old = pod.started_at is not None and now - pod.started_at >= spec.recycle.young_seconds
    return healthy and old and pod.ready and pod.intent is None


def _overdue(before: tuple[Eviction, ...], fleet: Fleet, now: float) -> Iterable[tuple[Reason, str]]:
    """Evictions that were closed just now although no replacement is ready."""
    awaited = {e.uid for e in before if not e.settled}
    workers = {worker.pod.uid: worker for worker in fleet.workers}
    for record in fleet.evictions:
        replacement = workers.get(record.replacement_uid or "")
        if record.uid not in awaited or not record.settled or record.uid in workers:
            continue
        if replacement is None or not replacement.pod.ready:
            pod = replacement.pod if replacement is not None else None
            why = "there is none" if pod is None else pod.phase_message or pod.phase_reason or "not ready"
            yield (
                Reason.REPLACEMENT_PENDING,
                f"replacement of {record.pod} not ready {now - record.at:.0f} s after its eviction: {why}",
            )


def _renew(worker: Worker, intent: Intent, message: str) -> Step:
    pod = worker.pod
    return Step(
        pod.uid,
        pod.name,
        Act.RENEW,
        Reason.WORKER_DRAINING,
        message,
        intent,
        pod.history,
        silent=True,
        cause=intent.rule,
    )


def _user_cordon(worker: Worker) -> Iterable[Step]:
    """A person's cordon is asserted anew after each restart of the worker, and ended only by a person."""
    pod, cordon = worker.pod, worker.pod.user_cordon
    if cordon is None or pod.deleting or pod.phase is not Phase.RUNNING:
        return
    if cordon.lift:
        yield Step(
            pod.uid,
            pod.name,
            Act.USER_UNCORDON,
            Reason.USER_CORDON_LIFTED,
            "a person has lifted the cordon",
            pod.intent,
            pod.history,
            drop_user_cordon=True,
        )
        return
    draining = worker.evidence.series(Signal.DRAINING_USER)
    if draining is None or draining.value <= 0:
        yield Step(
            pod.uid,
            pod.name,
            Act.USER_CORDON,
            Reason.USER_CORDON_ASSERTED,
            f"cordoned by a person: {cordon.reason or 'no reason given'}",
            pod.intent,
            pod.history,
            silent=worker.cordon_confirmed,
        )


def _candidate(worker: Worker) -> Finding | None:
    """The gravest thing that speaks for acting on a worker that is not being acted on."""
    pod = worker.pod
    if pod.intent is not None or pod.deleting:
        return None
    degraded = worker.verdict.health is Health.DEGRADED
    # A wish that must wait for metrics does not keep a hung worker from its eviction.
    heard = worker.evidence.boot_id is not None or not degraded
    if pod.recycle_requested is not None and pod.phase is Phase.RUNNING and not _lifting(worker) and heard:
        text = f"a person asked for it: {pod.recycle_requested or 'no reason given'}"
        return Finding(RuleName.REQUESTED, RuleClass.REQUEST, Outcome.BREACH, text, priority=-1)
    if not degraded:
        well = worker.verdict.health in (Health.HEALTHY, Health.IDLE)
        return worker.verdict.due if well else None
    finding = worker.verdict.breaches[0]
    # The person's wish comes first, except where the worker can no longer hear it.
    return None if _lifting(worker) and finding.rule_class is not RuleClass.STALL else finding


def _lifting(worker: Worker) -> bool:
    cordon = worker.pod.user_cordon
    return cordon is not None and cordon.lift


def _order(item: tuple[Worker, Finding]) -> tuple[float, float, float, str]:
    """Gravest first; among leakers the fullest; then the idle and least loaded; then by name."""
    worker, finding = item
    fullness = -round(finding.value or 0.0, 2) if finding.rule_class is RuleClass.MEMORY else 0.0
    jobs = worker.evidence.series(Signal.JOBS)
    return finding.priority, fullness, jobs.value if jobs else 0.0, worker.pod.name


def _start(spec: Spec, fleet: Fleet, capacity: Capacity, now: float) -> tuple[list[Step], list[Blocked]]:
    """New remediations, as many as the budget lets, and why the others must wait."""
    found = ((worker, _candidate(worker)) for worker in fleet.workers)
    candidates = [(worker, finding) for worker, finding in found if finding is not None]
    steps: list[Step] = []
    blocked: list[Blocked] = []
    in_flight, unavailable = capacity.in_flight, capacity.unavailable
    for worker, finding in sorted(candidates, key=_order):
        pod = worker.pod
        swap = _by_swap(spec, worker, finding, now)
        refusal = refusal_of(spec, fleet, capacity, worker, finding, now, swap=swap)
        costs = 1 if _available(worker) else 0
        # A person's cordon that ends at this tick gives a worker back; acting on it takes it again.
        serves = costs or (_lifting(worker) and pod.ready)
        if (
            refusal is None
            and not swap
            and (in_flight + 1 > capacity.budget or (serves and unavailable + costs > capacity.budget))
        ):
            refusal = (
                Reason.BUDGET_EXHAUSTED,
                f"{unavailable} of {capacity.expected} workers are out of service and {in_flight} are being "
                f"remediated; {capacity.budget} may be",
            )
        if refusal is not None:
            blocked.append(
                Blocked(pod.uid, pod.name, refusal[0], f"{finding.message}; {refusal[1]}", finding.rule)
            )
            continue
        if swap:
            steps.append(_swap(worker, finding, now))
            continue
        in_flight, unavailable = in_flight + 1, unavailable + costs
        steps.append(_cordon(worker, finding, now))
    return steps, blocked


def _by_swap(spec: Spec, worker: Worker, finding: Finding, now: float) -> bool:
    """A fresh model process can take over while the worker goes on: that costs no unit of the budget."""
    if finding.outcome is Outcome.DUE:
        return True
    act = first_act(spec, worker, finding.rule, finding.rule_class, now)
    return act is Stage.SWAP and spec.mode is Mode.RECYCLE


def _intent(stage: Stage, worker: Worker, finding: Finding, now: float) -> Intent:
    return Intent(
        stage,
        worker.evidence.boot_id,
        worker.pod.container_id,
        finding.rule,
        finding.rule_class,
        finding.message,
        now,
        now,
        worker.evidence.life_id,
    )


def _swap(worker: Worker, finding: Finding, now: float) -> Step:
    pod = worker.pod
    return Step(
        pod.uid,
        pod.name,
        Act.SWAP,
        Reason.SWAP_REQUESTED,
        f"{finding.rule}: {finding.message}",
        _intent(Stage.SWAP, worker, finding, now),
        pod.history,
        warning=finding.outcome is not Outcome.DUE,
        cause=finding.rule,
    )


def _cordon(worker: Worker, finding: Finding, now: float) -> Step:
    pod, requested = worker.pod, finding.rule_class is RuleClass.REQUEST
    return Step(
        pod.uid,
        pod.name,
        Act.CORDON,
        Reason.WORKER_CORDONED,
        f"{finding.rule}: {finding.message}",
        _intent(Stage.CORDON, worker, finding, now),
        # A person looks after it: what was given up before is open again.
        replace(pod.history, failed=None) if requested else pod.history,
        drop_request=requested,
        warning=True,
        cause=finding.rule,
    )
