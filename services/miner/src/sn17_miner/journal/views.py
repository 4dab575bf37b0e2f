"""Tasks as people and programs see them: read from the journal, beside a running miner or without one."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sn17_contract.tasks import (
    VALIDATORS,
    AttemptView,
    DoorTally,
    EventView,
    GivenUpReason,
    Outcome,
    TaskList,
    TaskView,
    ValidatorTally,
    Window,
)

from sn17_miner.core.records import Attempt, Event, Task
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import Chosen, Ended, JournalError


def task_view(task: Task, uid: int | None, events: Iterable[Event] | None = None) -> TaskView:
    """A journal row as people see it."""
    told = (
        None if events is None else tuple(EventView(at=e.at, event=e.event, detail=e.detail) for e in events)
    )
    return TaskView(
        n=task.n,
        task_id=task.task_id,
        validator=task.validator,
        uid=uid,
        kind=task.kind,
        prompt=task.log_id,
        enhancement=task.enhancement,
        state=task.state,
        outcome=task.outcome,
        reason=task.reason,
        score=task.score,
        pulled_at=task.pulled_at,
        finished_at=task.finished_at,
        submits=task.submits,
        attempts=tuple(_attempt_view(attempt) for attempt in task.attempts),
        events=told,
        door=task.door,
    )


def _attempt_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        key=attempt.key,
        worker=attempt.worker,
        seed=attempt.seed,
        state=attempt.state,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        signal=attempt.signal and attempt.signal.kind,
        score=attempt.signal and attempt.signal.score,
        confidence=attempt.confidence,
        failure=attempt.failure,
        error=attempt.error,
        lane=attempt.lane,
    )


def window(
    hours: int, outcomes: Iterable[Ended], deliveries: Mapping[str, tuple[int, int]], uids: Mapping[str, int]
) -> Window:
    """What ended within ``hours``; ``deliveries`` (in time, all) per validator. Each door counts apart."""
    everything = list(outcomes)
    ended = [row for row in everything if row.door == VALIDATORS]
    names = sorted({row.validator for row in ended})
    doors = sorted({row.door for row in everything} - {VALIDATORS})
    return Window(
        hours=hours,
        **_shares(ended, deliveries.values()),
        validators=tuple(
            ValidatorTally(
                validator=name,
                uid=uids.get(name),
                **_shares([row for row in ended if row.validator == name], [deliveries.get(name, (0, 0))]),
            )
            for name in names
        ),
        gateways=tuple(
            DoorTally(door=door, **_shares([row for row in everything if row.door == door], ()))
            for door in doors
        ),
    )


def _shares(rows: Iterable[Ended], deliveries: Iterable[tuple[int, int]]) -> dict[str, Any]:
    outcomes, reasons = Counter[Outcome](), Counter[GivenUpReason]()
    for row in rows:
        outcomes[row.outcome] += row.count
        if row.reason is not None:
            reasons[row.reason] += row.count
    ended, accepted = outcomes.total(), outcomes[Outcome.ACCEPTED]
    tried = ended - outcomes[Outcome.SKIPPED]
    counted = list(deliveries)
    in_time, judged = sum(d[0] for d in counted), sum(d[1] for d in counted)
    return {
        "ended": ended,
        "outcomes": {outcome: count for outcome, count in outcomes.items() if count},
        "reasons": dict(reasons),
        "success": accepted / tried if tried else None,
        "yield": accepted / ended if ended else None,
        "in_time": in_time / judged if judged else None,
    }


def open_story(path: Path, n: int) -> TaskView | None:
    """A task with its story, read beside the running miner."""
    with contextlib.closing(Journal(path, readonly=True)) as journal:
        try:
            task = journal.task(n)
        except JournalError:
            return None
        return task_view(task, journal.uids().get(task.validator), journal.events(n))


def list_tasks(
    path: Path,
    *,
    limit: int,
    state: str | None = None,
    validator: str | None = None,
    task_id: str | None = None,
    door: str | None = None,
    clock: Callable[[], float] = time.time,
) -> TaskList:
    """The newest tasks, read beside the running miner. The summary follows the filters by who asked."""
    with contextlib.closing(Journal(path, readonly=True)) as journal:
        tasks = journal.tasks(limit=limit, state=state, validator=validator, task_id=task_id, door=door)
        now, uids = clock(), journal.uids()
        chosen = Chosen(validator, door=door)
        windows = (
            window(hours, journal.outcomes(since, chosen), journal.deliveries(since, chosen), uids)
            for hours, since in ((hours, now - hours * 3600.0) for hours in (1, 4))
        )
        return TaskList(
            tasks=tuple(task_view(task, uids.get(task.validator)) for task in tasks),
            counts=journal.counts(chosen),
            windows=tuple(windows),
        )
