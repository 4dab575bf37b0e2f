"""What the page shows, as JSON: made from the miner's answers and the gateway's queue. No I/O."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from sn17_contract.tasks import (
    AttemptState,
    AttemptView,
    GivenUpReason,
    Lane,
    Outcome,
    Signal,
    Tally,
    TaskKind,
    TaskList,
    TaskState,
    TaskView,
    ValidatorList,
    WorkerView,
)
from sn17_contract.worker import RecycleHow, RecycleOutcome


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Queue(_View):
    """The gateway's queue: tasks that wait for a worker, tasks at work, age of the oldest (seconds)."""

    waiting: int
    working: int
    oldest_seconds: float


class AssetView(_View):
    """One task of any door. Times are Unix seconds, ``seconds`` is from pull to end.

    ``repaired`` says that the fixer changed the asset. ``seed`` and ``lane`` are those of the last attempt.
    """

    n: int
    task_id: str
    door: str
    validator: str
    uid: int | None
    kind: TaskKind
    prompt: str
    seed: int | None
    lane: Lane | None
    state: TaskState
    outcome: Outcome | None
    reason: GivenUpReason | None
    score: float | None
    repaired: bool
    attempts: int
    key: str | None
    pulled_at: float
    seconds: float | None
    kept: bool


class JobView(_View):
    """What a worker is at; ``steps`` 0 means not known."""

    key: str | None
    stage: str
    step: int
    steps: int


class WorkerLine(_View):
    """One worker. ``memory`` is its share of the limit; ``recycled_at`` Unix seconds."""

    name: str
    state: str | None
    reason: str | None
    job: JobView | None
    memory: float | None
    gaussians_mean: float | None
    model_processes: int | None
    recycling: RecycleHow | None
    recycled: RecycleHow | None
    recycle_outcome: RecycleOutcome | None
    recycle_reason: str | None
    recycled_at: float | None


class SuccessLine(_View):
    """Ended tasks of one validator or gateway in the longest window. Shares are 0 to 1."""

    name: str
    uid: int | None
    ended: int
    accepted: int
    success: float | None


class PageState(_View):
    """Answer of ``GET /page/v1/state``. ``miner`` says why nothing is known of tasks and workers."""

    node: str
    now: float
    queue: Queue | None
    miner: str | None
    not_pulling: str | None
    hours: int | None
    assets: tuple[AssetView, ...]
    workers: tuple[WorkerLine, ...]
    validators: tuple[SuccessLine, ...]
    gateways: tuple[SuccessLine, ...]


def asset_view(task: TaskView) -> AssetView:
    """A task as the page lists it."""
    last: AttemptView | None = task.attempts[-1] if task.attempts else None
    fixed = [attempt for attempt in task.attempts if attempt.state is AttemptState.FIXED]
    return AssetView(
        n=task.n,
        task_id=task.task_id,
        door=task.door,
        validator=task.validator,
        uid=task.uid,
        kind=task.kind,
        prompt=task.prompt,
        seed=last.seed if last else None,
        lane=last.lane if last else None,
        state=task.state,
        outcome=task.outcome,
        reason=task.reason,
        score=task.score,
        repaired=any(attempt.signal is Signal.REPAIRED for attempt in fixed),
        attempts=len(task.attempts),
        key=last.key if last else None,
        pulled_at=task.pulled_at,
        seconds=None if task.finished_at is None else task.finished_at - task.pulled_at,
        kept=task.kept,
    )


def worker_line(worker: WorkerView) -> WorkerLine:
    """A worker as the page lists it; unknown where the miner has no answer of it."""
    status = worker.status
    job = status.job if status else None
    memory = status.memory if status else None
    last = status.last_recycle if status else None
    return WorkerLine(
        name=worker.name,
        state=worker.state,
        reason=worker.reason,
        job=None if job is None else JobView(key=job.key, stage=job.stage, step=job.step, steps=job.steps),
        memory=memory.ratio if memory else None,
        gaussians_mean=status.gaussians_mean if status else None,
        model_processes=status.model_processes if status else None,
        recycling=status.recycling if status else None,
        recycled=last.how if last else None,
        recycle_outcome=last.outcome if last else None,
        recycle_reason=last.reason if last else None,
        recycled_at=last.at if last else None,
    )


def page_state(
    node: str,
    now: float,
    queue: Queue | None,
    tasks: TaskList | None,
    places: ValidatorList | None,
    trouble: str | None,
) -> PageState:
    """Everything the page shows. ``tasks`` and ``places`` are None where the miner gave no answer."""
    window = max(tasks.windows, key=lambda each: each.hours) if tasks and tasks.windows else None
    return PageState(
        node=node,
        now=now,
        queue=queue,
        miner=trouble,
        not_pulling=places.not_pulling if places else None,
        hours=window.hours if window else None,
        assets=tuple(asset_view(task) for task in tasks.tasks) if tasks else (),
        workers=tuple(worker_line(worker) for worker in places.workers) if places else (),
        validators=tuple(
            _success_line(line, line.validator, line.uid) for line in (window.validators if window else ())
        ),
        gateways=tuple(_success_line(line, line.door, None) for line in (window.gateways if window else ())),
    )


def _success_line(tally: Tally, name: str, uid: int | None) -> SuccessLine:
    return SuccessLine(
        name=name,
        uid=uid,
        ended=tally.ended,
        accepted=tally.outcomes.get(Outcome.ACCEPTED, 0),
        success=tally.success,
    )
