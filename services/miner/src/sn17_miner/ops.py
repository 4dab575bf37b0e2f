"""What the miner shows on its ops port: tasks with their story, validators, and gauges."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sn17_service import Problem
from sn17_service.contract import Code, Metric, Outcome

from sn17_miner import gate
from sn17_miner.journal import Journal, JournalError
from sn17_miner.metrics import label
from sn17_miner.miner import Miner
from sn17_miner.records import Task, TaskState
from sn17_miner.scheduler import Lane, Phase

Row = tuple[str, str, dict[str, str], float]


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


class ValidatorView(BaseModel):
    """One validator: where it stands and what was learned."""

    hotkey: str
    uid: int
    address: str
    stake: float
    phase: str
    reason: str
    next_pull: float | None
    task_id: str | None
    failures: int
    throttle: float
    threshold: float
    base_cooldown: float
    penalty: float
    acceptance: float
    delivery: float | None
    clock_offset: float
    gate_break_even: float

    @classmethod
    def of(cls, lane: Lane) -> ValidatorView:
        """The view of a lane."""
        learned = lane.learned
        return cls(
            hotkey=lane.neuron.hotkey,
            uid=lane.neuron.uid,
            address=lane.neuron.address,
            stake=lane.neuron.stake,
            phase=lane.phase.value,
            reason=lane.reason,
            next_pull=_next_pull(lane),
            task_id=lane.task_id,
            failures=lane.failures,
            throttle=learned.throttle,
            threshold=learned.threshold,
            base_cooldown=learned.base_cooldown,
            penalty=learned.penalty,
            acceptance=learned.acceptance,
            delivery=learned.delivery,
            clock_offset=learned.offset.estimate,
            gate_break_even=gate.break_even(learned.acceptance, learned.base_cooldown, learned.penalty),
        )


class WorkerView(BaseModel):
    """One worker as the miner sees it."""

    url: str
    name: str
    state: str | None
    free: bool
    reason: str | None


class ValidatorList(BaseModel):
    """``GET /v1/validators``."""

    validators: list[ValidatorView]
    workers: list[WorkerView]
    not_pulling: str | None


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


@dataclass(slots=True)
class Place:
    """Where the routes find the journal, and the miner once it is there: they are made before it."""

    journal: Path
    miner: Miner | None = None

    def ready(self) -> Miner:
        """The miner. Raises Problem while it starts."""
        if self.miner is None:
            raise Problem(Code.WARMING_UP, "the miner starts; ask again in a second", retry_after_seconds=1)
        return self.miner


def routes(place: Place) -> APIRouter:
    """Routes behind the admin token; the ops port serves them on a thread of its own."""
    router = APIRouter(prefix="/v1")
    journal = place.journal

    @router.get("/tasks")
    def tasks(
        limit: int = Query(50, ge=1, le=1000),
        state: TaskState | None = None,
        validator: str | None = Query(None, max_length=64),
        task_id: str | None = Query(None, max_length=128),
    ) -> TaskList:
        place.ready()
        return list_tasks(
            journal, limit=limit, state=state and state.value, validator=validator, task_id=task_id
        )

    @router.get("/tasks/{n}")
    def task(n: int) -> TaskView:
        place.ready()
        view = open_story(journal, n)
        if view is None:
            raise Problem(Code.NOT_FOUND, f"the journal has no task {n}; it may have been pruned")
        return view

    @router.get("/validators")
    def validators() -> ValidatorList:
        miner = place.ready()
        now = miner.context.monotonic()
        fleet = miner.context.pool.fleet
        workers = [
            WorkerView(
                url=w.url,
                name=w.name,
                state=w.status.state.value if w.status else None,
                free=fleet.why_not(w, now) is None,
                reason=fleet.why_not(w, now),
            )
            for w in list(fleet.workers.values())
        ]
        return ValidatorList(
            validators=[ValidatorView.of(lane) for lane in list(miner.context.scheduler.lanes.values())],
            workers=workers,
            not_pulling=miner.why_not_pulling,
        )

    return router


def gauges(miner: Miner) -> Iterable[Row]:
    """Everything that is computed when scraped."""
    context = miner.context
    now = context.clock()
    lanes = list(context.scheduler.lanes.values())
    for lane in lanes:
        name = {"validator": label(lane.neuron.hotkey)}
        at = _next_pull(lane)
        if at is not None:
            yield Metric.NEXT_PULL, "When the validator is asked next.", name, at
        learned = lane.learned
        mark = gate.break_even(learned.acceptance, learned.base_cooldown, learned.penalty)
        threshold = (
            mark
            if context.scorer is None
            else gate.lowest_score(learned.evidence, threshold=learned.threshold, mark=mark, now=now)
        )
        yield Metric.GATE_THRESHOLD, "Below it a result is not submitted.", name, threshold
    for phase in Phase:
        count = sum(1 for lane in lanes if lane.phase is phase)
        yield Metric.VALIDATORS, "Validators by phase.", {"phase": phase.value}, count
    for state in TaskState:
        yield (
            Metric.JOURNAL_TASKS,
            "Tasks in the journal.",
            {"state": state.value},
            miner.counts.get(state.value, 0),
        )
    yield Metric.SPOOL_BYTES, "Payloads on disk.", {}, miner.spool_bytes
    yield Metric.CLOCK_SKEW, "Validators' clocks minus ours, median.", {}, miner.clock_skew()
    yield from _chain(miner)


def _chain(miner: Miner) -> Iterable[Row]:
    snapshot, age = miner.feed.snapshot, miner.feed.age
    if snapshot is None or age is None:
        return
    hotkey = miner.context.scheduler.miner_hotkey
    neuron = snapshot.neuron(hotkey)
    yield Metric.CHAIN_SNAPSHOT_AGE, "Since the chain was read.", {}, age
    yield Metric.BURN_PRICE, "Registration cost in TAO.", {}, snapshot.burn_price
    yield (
        Metric.REGISTERED,
        "Whether the hotkey is registered; uid as label.",
        {"uid": str(neuron.uid) if neuron else ""},
        float(neuron is not None),
    )
    if neuron is None:
        return
    yield Metric.EMISSION, "Alpha per tempo.", {}, neuron.emission
    yield Metric.INCENTIVE, "Share of 1.", {}, neuron.incentive
    yield Metric.STAKE, "Alpha.", {}, neuron.stake
    yield Metric.IMMUNITY_BLOCKS_LEFT, "Blocks until it may be pruned.", {}, neuron.immune_blocks_left
    position = snapshot.prune_position(hotkey)
    if position is not None:
        yield Metric.PRUNE_POSITION, "How many are pruned before us.", {}, position


def _next_pull(lane: Lane) -> float | None:
    return lane.wake_at if lane.phase in (Phase.COOLING, Phase.RESTING, Phase.READY) else None
