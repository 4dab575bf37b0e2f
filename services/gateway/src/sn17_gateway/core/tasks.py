"""The life of one task: handed out, given back, finished, told to clients."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sn17_gateway.core.model import NEVER, Asset, Delivery, Outcome, State, Task, Worker

TIMED_OUT: Final = "Task timed out"


class Refused(StrEnum):
    """Why a worker's result is not taken."""

    GONE = "gone"
    """The task is unknown, complete or over: the worker drops its result."""
    NOT_ASSIGNED = "not assigned"
    """The task is open, but not this worker's, or this worker has answered already."""


@dataclass(frozen=True, slots=True)
class Status:
    """The answer of ``get_status``. ``worker_id`` is that of the first success."""

    state: State
    successes: int = 0
    worker_id: str | None = None
    reason: str | None = None


def over(task: Task, now: float) -> bool:
    """Whether nothing more will come: every slot is used, or its life has ended."""
    return task.complete or now >= task.expires_at


def ended_at(task: Task) -> float:
    """When the task was over, or will be at the latest."""
    if task.complete:
        last = task.finished[task.slots - 1]
        return last.finished_at if last.finished_at is not None else task.expires_at
    return task.expires_at


def free_at(task: Task, now: float) -> float:
    """The earliest time at which the task has a slot to hand out; 0 for now, NEVER when complete."""
    needed = task.slots - len(task.finished)
    if needed <= 0:
        return NEVER
    leases = sorted(d.lease_until for d in task.deliveries if d.live(now))
    return 0.0 if len(leases) < needed else leases[len(leases) - needed]


def offered(task: Task, worker: Worker, now: float) -> bool:
    """Whether ``worker`` may have the task now.

    A hotkey has one delivery of a task, unless it gave it back by letting the lease end.
    """
    if over(task, now) or free_at(task, now) > now:
        return False
    if any(d.hotkey == worker.hotkey and (d.finished or d.live(now)) for d in task.deliveries):
        return False
    return bool(task.tags & worker.tags) if task.tags else not worker.tags


def hand_out(task: Task, worker: Worker, token: str, now: float, lease_seconds: float) -> Task:
    """The task with one more delivery. Raises ValueError where :func:`offered` says no."""
    if not offered(task, worker, now):
        raise ValueError(f"task {task.id} is not offered to this worker")
    delivery = Delivery(token, worker.hotkey, worker.worker_id, now, now + lease_seconds)
    return dataclasses.replace(task, deliveries=(*task.deliveries, delivery))


def find_delivery(task: Task | None, worker: Worker, token: str | None, now: float) -> Delivery | Refused:
    """The delivery that a result of ``worker`` belongs to; a lease that ended does not matter here.

    With a token it must be that delivery, else the worker's latest one.
    """
    if task is None or over(task, now):
        return Refused.GONE
    mine = [
        d
        for d in task.deliveries
        if d.hotkey == worker.hotkey and d.worker_id == worker.worker_id and token in (None, d.token)
    ]
    open_ones = [d for d in mine if not d.finished]
    return open_ones[-1] if open_ones else Refused.NOT_ASSIGNED


def finish(task: Task, token: str, result: Asset | str, now: float) -> Task:
    """The task after a success (an asset) or a failure (a reason). The delivery must be open."""
    delivery = next(d for d in task.deliveries if d.token == token)
    if delivery.finished:
        raise ValueError(f"delivery {token} has ended already")
    success = isinstance(result, Asset)
    return task.replace_delivery(
        dataclasses.replace(
            delivery,
            outcome=Outcome.SUCCESS if success else Outcome.FAILURE,
            finished_at=now,
            number=len(task.finished) + 1,
            asset=result if isinstance(result, Asset) else None,
            reason=None if isinstance(result, Asset) else result,
        )
    )


def status(task: Task | None, now: float) -> Status:
    """What a client is told. An unknown task looks like one that waits."""
    if task is None:
        return Status(State.NO_RESULT)
    successes, finished = task.successes, task.finished
    if over(task, now):
        if successes:
            return Status(State.SUCCESS, len(successes), worker_id=successes[0].worker_id)
        reason = finished[-1].reason if task.complete else TIMED_OUT
        return Status(State.FAILURE, reason=reason)
    if finished:
        return Status(State.PARTIAL, len(successes))
    if any(d.live(now) for d in task.deliveries):
        return Status(State.IN_PROGRESS)
    return Status(State.NO_RESULT)


def results(task: Task, now: float, keep_seconds: float) -> tuple[Delivery, ...]:
    """Successes that can be fetched, by arrival; none once the time to keep them has passed."""
    return task.successes if now < ended_at(task) + keep_seconds else ()
