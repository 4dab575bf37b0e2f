"""What the parts of the pipeline share."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bittensor_wallet import Keypair
from sn17_contract.tasks import Enhancement, GivenUpReason, Lane, Outcome, TaskKind
from sn17_protocol import Neuron

from sn17_miner.clients.axon import AxonClient
from sn17_miner.clients.fixer import FixerClient
from sn17_miner.clients.scorer import ScorerClient
from sn17_miner.clients.worker import WorkerClient
from sn17_miner.core.lanes import FastLane, LaneChoice, Times, choose_lane
from sn17_miner.core.learning import Learned
from sn17_miner.core.records import Task, ValidatorRecord
from sn17_miner.core.scheduler import Lane as ValidatorLane
from sn17_miner.core.scheduler import Scheduler
from sn17_miner.core.timing import Timing
from sn17_miner.core.verdict import CallError
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.thread import JournalThread
from sn17_miner.kept import KeptAssets
from sn17_miner.metrics import MinerMetrics, label
from sn17_miner.pool import Pool
from sn17_miner.spool import Spool

_BLEND = 0.3
_UNREADABLE = 422
_UNREADABLE_BEFORE_WARNING = 3
_log = logging.getLogger("sn17.miner")


@dataclass(slots=True)
class Durations:
    """Running means in seconds of what a task's time goes to."""

    generation: dict[tuple[TaskKind, Lane], float] = field(default_factory=dict)
    finishing: float = 1.0

    def generated(self, kind: TaskKind, seconds: float, lane: Lane = Lane.EXACT) -> None:
        """One generation, as the miner waited for it."""
        old = self.generation.get((kind, lane), seconds)
        self.generation[kind, lane] = old + _BLEND * (seconds - old)

    def finished(self, seconds: float) -> None:
        """Fixing and submitting."""
        self.finishing += _BLEND * (seconds - self.finishing)

    def expected(self, kind: TaskKind) -> float:
        """Of another generation and what follows; 0 generation until one was seen."""
        return self.generation.get((kind, Lane.EXACT), 0.0) + self.finishing

    def seen(self, kind: TaskKind, lane: Lane) -> float | None:
        """The same for one lane; None until one was seen."""
        seconds = self.generation.get((kind, lane))
        return None if seconds is None else seconds + self.finishing


@dataclass(slots=True)
class Context:
    """``clock`` Unix seconds, ``monotonic`` for durations; ``wake`` makes the main loop look again."""

    policy: Timing
    keypair: Keypair
    scheduler: Scheduler
    journal: JournalThread
    spool: Spool
    pool: Pool
    workers: WorkerClient
    fixer: FixerClient
    axon: AxonClient
    metrics: MinerMetrics
    clock: Callable[[], float]
    monotonic: Callable[[], float]
    clock_ns: Callable[[], int]
    wake: Callable[[], None] = lambda: None
    scorer: ScorerClient | None = None
    kept: KeptAssets = field(default_factory=lambda: KeptAssets(Path()))
    started_at: float = 0.0
    """Of this process: a task's time to get a result starts anew, since its validator still waits for it."""
    durations: Durations = field(default_factory=Durations)
    fast_lane: FastLane = FastLane.OFF

    unreadable: Counter[str] = field(default_factory=Counter)
    """Answers in a row that could not be read, by validator."""

    def answered(self, hotkey: str, error: CallError | None = None) -> None:
        """Count answers that cannot be read; some in a row are a change of the wire that nobody may miss."""
        if error is None:
            self.unreadable[hotkey] = 0
        elif error.status == _UNREADABLE:
            self.unreadable[hotkey] += 1
            if self.unreadable[hotkey] % _UNREADABLE_BEFORE_WARNING == 0:
                _log.warning(
                    "%d answers in a row of this validator cannot be read: %s",
                    self.unreadable[hotkey],
                    error.message,
                    extra={"validator": label(hotkey)},
                )

    def disk_full(self) -> str | None:
        """Why no further task should be taken on, or None. What is kept for people to look at gives way
        first. Blocks on the disk.
        """
        if self.spool.full() is None:
            return None
        self.kept.prune()
        return self.spool.full()

    def left(self, task: Task) -> float:
        """Seconds in which a result of this task is still worth having."""
        if task.assignment is not None:
            return task.assignment.expires_at - self.clock()
        return max(task.pulled_at, self.started_at) + self.policy.task_deadline - self.clock()

    def lane(self, task: Task) -> ValidatorLane:
        """The validator of a task."""
        return self.scheduler.lanes[task.validator]

    def learned(self, task: Task) -> Learned:
        """What is known of whoever judges the task; a gateway's client judges nothing."""
        return self.lane(task).learned if task.assignment is None else Learned.fresh(self.policy)

    def sampling(self, task: Task) -> LaneChoice:
        """The lane that the next generation of this task is asked for in."""
        free = None if task.assignment else task.throttle - (self.clock() - task.assigned_at)
        times = Times(
            self.durations.seen(task.kind, Lane.EXACT),
            self.durations.seen(task.kind, Lane.FAST),
            self.left(task),
            free,
        )
        return choose_lane(self.fast_lane, times, refused=task.no_fast_lane)

    def record(self, hotkey: str) -> ValidatorRecord:
        """A validator as the journal keeps it."""
        lane = self.scheduler.lanes[hotkey]
        neuron: Neuron = lane.neuron
        return ValidatorRecord(
            hotkey,
            neuron.uid,
            neuron.ip,
            neuron.port,
            neuron.stake,
            lane.cooldown_until,
            lane.learned.dump(),
        )

    async def note(self, task: Task, event: str, detail: str) -> None:
        """Write a decision down and count it."""
        self.metrics.decisions.labels(event).inc()
        await self.journal(Journal.note, task.n, event, detail)

    async def finish(
        self,
        task: Task,
        outcome: Outcome,
        detail: str,
        *,
        reason: GivenUpReason | None = None,
        score: float | None = None,
        cooldown_until: float | None = None,
    ) -> Task:
        """End a task: on disk, in the metrics, in the spool, in the scheduler, in this order."""
        lane = self.lane(task)
        now = self.clock()
        lane.cooldown_until = cooldown_until or 0.0
        if cooldown_until is not None:
            lane.learned.delivered(now - task.assigned_at)
        record = self.record(task.validator)
        done = await self.close(task, outcome, detail, reason=reason, score=score, validator=record)
        name = label(task.validator)
        sent = next((a for a in task.attempts if a.number == done.submitted_attempt), None)
        enhanced = task.enhancement if sent is None or sent.enhanced else Enhancement.NONE
        self.metrics.enhanced.labels(name, enhanced.value, outcome.value).inc()
        if score is not None:
            self.metrics.score.labels(name).observe(score)
        if cooldown_until is None:
            self.scheduler.on_dropped(now, task.validator)
        else:
            self.metrics.delivery.labels(task.door, name).observe(now - task.assigned_at)
            self.scheduler.on_finished(now, task.validator, cooldown_until)
        self.wake()
        return done

    async def close(
        self,
        task: Task,
        outcome: Outcome,
        detail: str,
        *,
        reason: GivenUpReason | None = None,
        score: float | None = None,
        validator: ValidatorRecord | None = None,
    ) -> Task:
        """The part of an end that all doors share: on disk, in the metrics, in the spool, in this order."""
        done = await self.journal(
            Journal.finished,
            task.n,
            outcome=outcome,
            reason=reason,
            score=score,
            detail=detail,
            validator=validator,
        )
        name = label(task.validator)
        about = {"door": task.door, "validator": name, "task": task.n}
        _log.log(
            logging.INFO if outcome is Outcome.ACCEPTED else logging.WARNING,
            "task %s",
            outcome.value,
            extra={**about, "detail": f"{reason}: {detail}" if reason else detail},
        )
        self.metrics.tasks.labels(task.door, name, task.kind, outcome.value).inc()
        self.metrics.decisions.labels(f"outcome:{outcome.value}").inc()
        if reason is not None:
            self.metrics.given_up.labels(task.door, reason.value).inc()
        sent = next((a for a in task.attempts if a.number == done.submitted_attempt), None)
        if sent is not None and sent.spz is not None:
            self.kept.keep(task.n, task.task_id, self.spool.path(sent.spz))
        for attempt in task.attempts:
            self.spool.remove(attempt.ply, attempt.spz)
        return done
