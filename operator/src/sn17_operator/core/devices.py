"""What the workers of one device have in common: acts that did not help make the device suspect.

A trial is kept by the device's UUID, so that it outlives pods. An act has failed when another process on the
same device breaches a rule again within its youth. Two that failed, one after another, make a suspect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sn17_operator.api import Spec, scaled
from sn17_operator.core.model import Fleet, Health, RuleName, Trial, Worker
from sn17_operator.core.plan import Act, Reason, Step

FAILED_ACTS: Final = 2
"""After so many on one device it is suspect."""
SUSPECT_SECONDS: Final = 86_400.0
"""How long a suspect that no worker has any more is still told of."""
KEPT_TRIALS: Final = 64
POINTING: Final = frozenset(
    {
        RuleName.DEVICE_UNHEALTHY,
        RuleName.GPU_ERROR,
        RuleName.MODEL_FAILING,
        RuleName.CANARY_DRIFT,
        RuleName.CANARY_DISAGREES,
        RuleName.GAUSSIANS_LOW,
        RuleName.SLOW,
    }
)
"""Rules whose breach may be the device's doing. A leak, a hang and silence are those of a process."""
REMEDIES: Final = frozenset({Act.SWAP, Act.REPLACE, Act.EXIT, Act.EVICT})


def points(rule: str) -> bool:
    """Whether a breach of the rule may be the device's doing."""
    return rule in POINTING


def settle_trials(spec: Spec, fleet: Fleet, now: float) -> tuple[Trial, ...]:
    """The trials after a look at the workers: what has failed is counted, what has worked is forgotten."""
    if not fleet.trials:
        return ()
    users = _users(fleet.workers)
    return tuple(
        settled
        for trial in fleet.trials
        if (settled := _settled(spec, trial, users.get(trial.uuid, ()), now)) is not None
    )


def _users(workers: Iterable[Worker]) -> dict[str, list[Worker]]:
    found: dict[str, list[Worker]] = {}
    for worker in workers:
        if (device := worker.device) is not None:
            found.setdefault(device, []).append(worker)
    return found


def _settled(spec: Spec, trial: Trial, users: Sequence[Worker], now: float) -> Trial | None:
    kept = SUSPECT_SECONDS if trial.suspect_at is not None else spec.recycle.eviction_window_seconds
    if not users:
        return trial if now - trial.at <= kept else None
    others = [w for w in users if w.life is not None and w.life != trial.life]
    if others and trial.done_at is None:
        trial = replace(trial, done_at=now)
    since = trial.at if trial.done_at is None else trial.done_at
    young = spec.recycle.young_seconds
    # Another pod on a shared card that breached a rule before the act is no proof against it.
    breaching = next((w for w in others if _pointing(w) and (w.degraded_since or now) >= trial.at), None)
    if breaching is not None and not trial.judged and now - since < young:
        return _failed(replace(trial, judged=True, pod=breaching.pod.name, node=breaching.pod.node), now)
    # Nothing to judge by clears no device that is suspect already.
    good = (Health.HEALTHY,) if trial.suspect_at is not None else (Health.HEALTHY, Health.IDLE)
    well = all(w.verdict.health in good and w.pod.ready and w.pod.intent is None for w in users)
    return None if well and now - since >= young else trial


def _pointing(worker: Worker) -> bool:
    return any(points(finding.rule) for finding in worker.verdict.breaches)


def _failed(trial: Trial, now: float, *, acts: int = 1) -> Trial:
    failures = trial.failures + acts
    suspect = now if failures >= FAILED_ACTS and trial.suspect_at is None else trial.suspect_at
    return replace(trial, failures=failures, suspect_at=suspect)


def after_acts(fleet: Fleet, steps: Sequence[Step], now: float) -> tuple[Trial, ...]:
    """The trials with the acts of this tick. A person who asks for a recycle wants the device tried anew."""
    trials = {trial.uuid: trial for trial in fleet.trials}
    workers = {worker.pod.uid: worker for worker in fleet.workers}
    for step in steps:
        worker = workers[step.uid]
        uuid, life = worker.device, worker.life
        if uuid is None or life is None:
            continue
        if step.cause == RuleName.REQUESTED and step.act is Act.CORDON:
            trials.pop(uuid, None)
            continue
        same = step.reason is Reason.SAME_OUTPUT and step.cause == RuleName.CANARY_DISAGREES
        if not points(step.cause) or not (same or (step.act in REMEDIES and not step.silent)):
            continue
        known = trials.get(uuid) or Trial(uuid, worker.pod.node, worker.pod.name, step.cause, now, life)
        tried = replace(
            known,
            node=worker.pod.node,
            pod=worker.pod.name,
            rule=step.cause,
            at=now,
            life=life,
            done_at=None,
            judged=same,
        )
        # Peers make something else, and a fresh process makes the same: worth as much as two failures.
        trials[uuid] = _failed(tried, now, acts=FAILED_ACTS) if same else tried
    return tuple(sorted(trials.values(), key=lambda trial: trial.at))[-KEPT_TRIALS:]


def suspects(spec: Spec, fleet: Fleet) -> dict[str, Trial]:
    """Devices that are suspect. Where that would be too many at once, the cause is not in the devices."""
    found = {trial.uuid: trial for trial in fleet.trials if trial.suspect_at is not None}
    if not found:
        return found
    used = found.keys() & _users(fleet.workers).keys()
    return {} if len(used) > scaled(spec.max_unhealthy, fleet.expected) else found


def suspicion(trial: Trial) -> str:
    """Why a device is suspect, and what a person or another system should do."""
    node = trial.node or "its node"
    return (
        f"{trial.uuid} on {node}: {trial.failures} remediations in a row failed there, the last for "
        f"{trial.rule} of {trial.pod}; have it tested, and keep work away from it: kubectl cordon {node}"
    )


def suspected(fleet: Fleet, found: Mapping[str, Trial]) -> Fleet:
    """The fleet whose workers know that their device is suspect."""
    if not found:
        return fleet
    workers = (replace(w, suspect=found.get(w.device or "")) for w in fleet.workers)
    return replace(fleet, workers=tuple(workers))


def not_helped(worker: Worker, rule: str) -> bool:
    """The device was suspect before the worker's pod was made, so that another pod does not help either. One
    whose canary is unlike that of its peers is taken out of service all the same.
    """
    suspect_at = None if worker.suspect is None else worker.suspect.suspect_at
    known = suspect_at is not None and worker.pod.created_at > suspect_at
    return known and points(rule) and rule != RuleName.CANARY_DISAGREES


def hand_over(found: Mapping[str, Trial], fleet: Fleet, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, with what is told of devices on the pods that have them, and an Event for what is new."""
    if not found and all(worker.pod.history.suspect is None for worker in fleet.workers):
        return tuple(steps)
    by_worker: dict[str, list[Step]] = {}
    for step in steps:
        by_worker.setdefault(step.uid, []).append(step)
    for worker in fleet.workers:
        pod, trial = worker.pod, found.get(worker.device or "")
        text = None if trial is None else suspicion(trial)
        if text == pod.history.suspect or pod.deleting:
            continue
        own = [replace(s, history=replace(s.history, suspect=text)) for s in by_worker.get(pod.uid, ())]
        by_worker[pod.uid] = [*own, *_told(worker, own, trial, text)]
    return tuple(step for own in by_worker.values() for step in own)


def _told(worker: Worker, own: Sequence[Step], trial: Trial | None, text: str | None) -> Iterator[Step]:
    pod = worker.pod
    if any(step.act is Act.EVICT or step.drop_user_cordon for step in own):
        return
    last = own[-1] if own else None
    yield Step(
        pod.uid,
        pod.name,
        Act.NOTE,
        Reason.DEVICE_CLEARED if text is None else Reason.DEVICE_SUSPECT,
        "its device is no longer suspect" if text is None else text,
        pod.intent if last is None else last.intent,
        replace(pod.history, suspect=text) if last is None else last.history,
        # A newer count of the same suspicion is no news.
        silent=text is not None and pod.history.suspect is not None,
        warning=text is not None,
        cause="" if trial is None else trial.rule,
    )
