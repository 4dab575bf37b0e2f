"""Tasks as people and programs see them: read from the journal, beside a running miner or without one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel, Field
from sn17_contract.tasks import Outcome

from sn17_miner.core.records import Task
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError


class AttemptView(BaseModel):
    """One generation."""

    key: str
    worker: str
    seed: int
    state: str
    started_at: float
    finished_at: float | None
    signal: str | None
    confidence: float | None
    error: str | None


class EventView(BaseModel):
    """One line of the story."""

    at: float
    event: str
    detail: str


class TaskView(BaseModel):
    """A task as people see it; never a whole image."""

    n: int
    task_id: str
    validator: str
    kind: str
    prompt: str
    enhancement: str
    state: str
    outcome: str | None
    reason: str | None
    score: float | None
    pulled_at: float
    finished_at: float | None
    submits: int
    attempts: list[AttemptView]
    events: list[EventView] = []

    @classmethod
    def of(cls, task: Task, events: Iterable[EventView] = ()) -> TaskView:
        """The view of a journal row."""
        attempts = [
            AttemptView(
                key=a.key,
                worker=a.worker,
                seed=a.seed,
                state=a.state.value,
                started_at=a.started_at,
                finished_at=a.finished_at,
                signal=a.signal,
                confidence=a.confidence,
                error=a.error,
            )
            for a in task.attempts
        ]
        return cls(
            n=task.n,
            task_id=task.task_id,
            validator=task.validator,
            kind=task.kind,
            prompt=task.log_id,
            enhancement=task.enhancement,
            state=task.state.value,
            outcome=task.outcome,
            reason=task.reason,
            score=task.score,
            pulled_at=task.pulled_at,
            finished_at=task.finished_at,
            submits=task.submits,
            attempts=attempts,
            events=list(events),
        )


class Window(BaseModel):
    """Tasks that ended within the last hours. Success leaves skipped ones out, yield does not: shown side by
    side, so that skipping does not look like winning.
    """

    hours: int
    ended: int
    outcomes: dict[str, int]
    reasons: dict[str, int]
    success: float | None
    yield_: float | None = Field(alias="yield")
    in_time: float | None
    """Share of judged results that were delivered within the free window."""

    @classmethod
    def of(
        cls, hours: int, rows: Iterable[tuple[str, str, str | None, int]], deliveries: tuple[int, int]
    ) -> Window:
        """From (validator, outcome, reason, count) rows and (in time, all) deliveries."""
        outcomes, reasons = Counter[str](), Counter[str]()
        for _, outcome, reason, count in rows:
            outcomes[outcome] += count
            if reason is not None:
                reasons[reason] += count
        ended, accepted = outcomes.total(), outcomes[Outcome.ACCEPTED]
        tried = ended - outcomes[Outcome.SKIPPED]
        values = {
            "success": accepted / tried if tried else None,
            "yield": accepted / ended if ended else None,
        }
        values["in_time"] = deliveries[0] / deliveries[1] if deliveries[1] else None
        return cls(hours=hours, ended=ended, outcomes=dict(outcomes), reasons=dict(reasons), **values)


class TaskList(BaseModel):
    """``GET /v1/tasks``."""

    tasks: list[TaskView]
    counts: dict[str, int]
    windows: list[Window]


def open_story(path: Path, n: int) -> TaskView | None:
    """A task with its story, read beside the running miner."""
    journal = Journal(path, readonly=True)
    try:
        events = [EventView(at=e.at, event=e.event, detail=e.detail) for e in journal.events(n)]
        return TaskView.of(journal.task(n), events)
    except JournalError:
        return None
    finally:
        journal.close()


def list_tasks(
    path: Path,
    *,
    limit: int,
    state: str | None = None,
    validator: str | None = None,
    task_id: str | None = None,
    clock: Callable[[], float] = time.time,
) -> TaskList:
    """The newest tasks, read beside the running miner."""
    journal = Journal(path, readonly=True)
    try:
        tasks = journal.tasks(limit=limit, state=state, validator=validator, task_id=task_id)
        now = clock()
        starts = {hours: now - hours * 3600.0 for hours in (1, 4)}
        windows = [Window.of(h, journal.outcomes(t), journal.deliveries(t)) for h, t in starts.items()]
        return TaskList(tasks=[TaskView.of(task) for task in tasks], counts=journal.counts(), windows=windows)
    finally:
        journal.close()
