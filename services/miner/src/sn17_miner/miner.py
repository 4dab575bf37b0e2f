"""The miner: pulls when the scheduler says so, keeps every task going, survives whatever fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import Phase, TaskKind, TaskState
from sn17_protocol import ChainSnapshot, Neuron, PullTask

from sn17_miner.chain.feed import ChainFeed
from sn17_miner.clients.axon import Answer
from sn17_miner.clients.web import short
from sn17_miner.context import Context
from sn17_miner.core.fleet import Worker
from sn17_miner.core.learning import Learned
from sn17_miner.core.records import Task
from sn17_miner.core.scheduler import FreeWorker, Pull
from sn17_miner.core.verdict import CallError
from sn17_miner.generation import holder
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError
from sn17_miner.metrics import label
from sn17_miner.pipeline import Pipeline

_log = logging.getLogger("sn17.miner")

_LONGEST_SLEEP: Final = 1.0
"""The wall clock may be set while we sleep on the monotonic one."""
_HOUSEKEEPING_SECONDS: Final = 60.0
_RESTART: Final = Backoff(first=1.0, cap=60.0)


@dataclass(slots=True)
class Limits:
    """Of what is kept, and when to end."""

    max_tasks: int | None
    keep_seconds: float
    keep_tasks: int
    skew_alarm: float


@dataclass(slots=True)
class Miner:
    """``paused`` gives a reason for not pulling (a drain lease); ``done`` is called when ``max_tasks`` are
    finished; ``settled`` once after the journal has been resumed.
    """

    context: Context
    pipeline: Pipeline
    feed: ChainFeed
    limits: Limits
    paused: Callable[[], str | None]
    done: Callable[[], None]
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    pulled: int = 0
    pulling: int = 0
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    running: dict[int, asyncio.Task[Any]] = field(default_factory=dict)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    why_not_pulling: str | None = "starting"
    counts: dict[TaskState, int] = field(default_factory=dict)
    spool_bytes: int = 0
    spool_full: str | None = None
    _said: str | None = None

    # --- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A failing part is counted, logged and started again."""
        try:
            await self._resume()
            self.feed.load()
            self.supervise("chain", self.feed.run)
            self.supervise("workers", lambda: self.context.pool.run(self.supervise))
            self.supervise("housekeeping", self._housekeeping)
            while True:
                self.woken.clear()
                delay = self._turn()
                try:
                    async with asyncio.timeout(delay):
                        await self.woken.wait()
                except TimeoutError:
                    pass
        finally:
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def finish_running(self) -> None:
        """Wait for tasks in hand, as a drain before the end wants it."""
        while self.running or self.pulling:
            await asyncio.wait({*self.running.values(), *self.calls}, return_when=asyncio.FIRST_COMPLETED)

    def wake(self) -> None:
        """Look again at once."""
        self.woken.set()

    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside the loop; whatever ends it with an exception is told."""
        task = asyncio.create_task(work, name=name)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def supervise(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run beside the loop until it returns; an exception is told, and it is started again."""

        async def forever() -> None:
            failures = 0
            while True:
                try:
                    return await work()
                except Exception:
                    failures += 1
                    self.context.metrics.errors.labels("background").inc()
                    _log.exception("%s failed and is started again", name)
                await asyncio.sleep(_RESTART.seconds(failures))

        self.spawn(name, forever())

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.context.metrics.errors.labels("background").inc()
            _log.error("%s ended: %s", task.get_name(), short(error), exc_info=error)

    async def _resume(self) -> None:
        context = self.context
        now = context.clock()
        for record in await context.journal(Journal.validators):
            neuron = Neuron(
                uid=record.uid,
                hotkey=record.hotkey,
                ip=record.ip,
                port=record.port,
                stake=record.stake,
                serving=True,
            )
            learned = Learned.load(record.learned, context.policy)
            context.scheduler.restore(now, neuron, learned, record.cooldown_until)
        removed = await asyncio.to_thread(context.spool.sweep, await context.journal(Journal.payloads))
        tasks = await context.journal(Journal.open_tasks)
        for task in tasks:
            context.scheduler.resume(now, task.validator, task.task_id)
            self._start(task, None)
        if tasks or removed:
            _log.info("resumed", extra={"tasks": len(tasks), "stray_files_removed": removed})

    async def _housekeeping(self) -> None:
        context = self.context
        while True:
            self.spool_bytes = await asyncio.to_thread(context.spool.used)
            self.spool_full = await asyncio.to_thread(context.spool.full)
            await context.journal(
                Journal.prune, max_age=self.limits.keep_seconds, max_tasks=self.limits.keep_tasks
            )
            if self.feed.snapshot is not None:
                await context.journal(Journal.forget_validators, frozenset(context.scheduler.lanes))
            self.counts = await context.journal(Journal.counts)
            self._watch_clock()
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)

    def _watch_clock(self) -> None:
        skew = self.clock_skew()
        if abs(skew) > self.limits.skew_alarm:
            _log.warning(
                "this clock is %.1f s %s the validators': pulls may come too early, calls may be refused",
                abs(skew),
                "behind" if skew > 0 else "ahead of",
            )

    def clock_skew(self) -> float:
        """Validators' clocks minus ours, seconds: the median, so that one odd validator says nothing."""
        offsets = sorted(lane.learned.offset.estimate for lane in self.context.scheduler.lanes.values())
        return offsets[len(offsets) // 2] if offsets else 0.0

    # --- chain ----------------------------------------------------------------------------------

    def on_snapshot(self, snapshot: ChainSnapshot) -> None:
        """The metagraph was read."""
        report = self.context.scheduler.sync(self.context.clock(), snapshot.neurons)
        if report.added or report.removed or report.moved:
            _log.info(
                "validators changed",
                extra={
                    "added": [label(h) for h in report.added],
                    "removed": [label(h) for h in report.removed],
                    "moved": [label(h) for h in report.moved],
                    "block": snapshot.block,
                },
            )
        self.wake()

    # --- the loop -------------------------------------------------------------------------------

    def _turn(self) -> float:
        """Start the pulls that are due; seconds until the next look."""
        context = self.context
        now, monotonic = context.clock(), context.monotonic()
        free = context.pool.fleet.free(monotonic)
        allowed = self._allowed()
        slots = [FreeWorker(w.url, now - (monotonic - (w.free_since or monotonic))) for w in free]
        plan = context.scheduler.plan(now, slots, allowed=allowed)
        for pull in plan.pulls:
            worker = context.pool.fleet.hold(pull.worker, _puller(pull), monotonic)
            self.pulling += 1
            call = self.spawn("pull", self._pull(pull, worker))
            self.calls.add(call)
            call.add_done_callback(self.calls.discard)
        over = self.limits.max_tasks is not None and self.pulled >= self.limits.max_tasks
        if over and not self.running and not self.pulling:
            self.done()
        return _LONGEST_SLEEP if plan.wake_at is None else min(_LONGEST_SLEEP, max(0.0, plan.wake_at - now))

    def _allowed(self) -> int | None:
        """How many more pulls may start, and say so when none may."""
        reason = self.paused() or self.spool_full or self._unregistered() or self._no_worker()
        if reason != self._said:
            _log.warning("not pulling: %s", reason) if reason else _log.info("pulling again")
            self._said = reason
        self.why_not_pulling = reason
        if reason is not None:
            return 0
        if self.limits.max_tasks is None:
            return None
        return max(0, self.limits.max_tasks - self.pulled - self.pulling)

    def _unregistered(self) -> str | None:
        snapshot = self.feed.snapshot
        if snapshot is not None and snapshot.neuron(self.context.scheduler.miner_hotkey) is None:
            return f"this hotkey is not registered on subnet {snapshot.netuid} (block {snapshot.block})"
        return None

    def _no_worker(self) -> str | None:
        fleet = self.context.pool.fleet
        if fleet.usable(self.context.monotonic()):
            return None
        if not fleet.workers:
            return f"no worker found: {self.context.pool.discovery_error or 'the list is empty'}"
        return f"none of {len(fleet.workers)} workers is healthy"

    async def _pull(self, pull: Pull, worker: Worker) -> None:
        try:
            with self.context.pool.held(worker, _puller(pull)):
                await self._call(pull, worker)
        finally:
            self.pulling -= 1
            self.wake()

    async def _call(self, pull: Pull, worker: Worker) -> None:
        context, name = self.context, label(pull.hotkey)
        try:
            if pull.idle_while_free is not None:
                context.metrics.idle.labels(name).observe(pull.idle_while_free)
            answer = await context.axon.pull(context.scheduler.lanes[pull.hotkey].neuron)
            context.answered(pull.hotkey)
            task = await self._answered(pull, answer)
            if task is not None:
                context.pool.fleet.release(worker.url, context.monotonic())
                context.pool.fleet.hold(worker.url, holder(task.n), context.monotonic())
                self._start(task, worker)
        except CallError as error:
            _log.info("pull failed: %s", error, extra={"validator": name})
            context.answered(pull.hotkey, error)
            context.metrics.decisions.labels("pull failed").inc()
            context.scheduler.on_pull_failed(context.clock(), pull.hotkey)
        except Exception:
            # Nothing was journalled: the validator hands the same task out again.
            context.metrics.errors.labels("pull").inc()
            _log.exception("pull failed", extra={"validator": name})
            lane = context.scheduler.lanes.get(pull.hotkey)
            if lane is not None and lane.phase is Phase.PULLING:
                context.scheduler.on_pull_failed(context.clock(), pull.hotkey)

    async def _answered(self, pull: Pull, answer: Answer[PullTask]) -> Task | None:
        context, hotkey, value = self.context, pull.hotkey, answer.value
        lane = context.scheduler.lanes[hotkey]
        learned = lane.learned
        if answer.date is not None:
            learned.offset.date_header(answer.sent, answer.received, answer.date)
        now = context.clock()
        if value.task is None:
            wait = value.cooldown_until - (answer.received + learned.offset.estimate)
            if value.cooldown_violations == 0 and wait > 0.75 * context.policy.unregistered_wait:
                # No cooldown is that long, and a violation is counted as it is told (from below zero, too).
                _log.warning(
                    "the validator does not know this hotkey yet", extra={"validator": label(hotkey)}
                )
                context.scheduler.on_unregistered(now, hotkey, value.cooldown_until)
            elif value.cooldown_until > 0:
                await self._too_early(hotkey, answer)
            else:
                context.scheduler.on_no_task(now, hotkey)
            return None
        if lane.cooldown_until:
            learned.offset.not_before(answer.sent, answer.received, lane.cooldown_until)
        learned.told(value.throttle_period, value.validation_threshold)
        learned.waited(pull.idle or 0.0)
        try:
            task, new = await context.journal(
                Journal.task_pulled,
                task_id=value.task.id,
                validator=hotkey,
                kind=TaskKind(value.task.type),
                prompt=value.task.prompt,
                threshold=learned.threshold,
                throttle=learned.throttle,
                assigned_at=answer.sent,
                idle=pull.idle_while_free,
                record=context.record(hotkey),
            )
        except JournalError as error:
            _log.error("task not taken: %s", error, extra={"validator": label(hotkey)})
            context.scheduler.on_pull_failed(now, hotkey)
            return None
        if new:
            self.pulled += 1
            context.metrics.pulled.labels(label(hotkey), task.kind).inc()
        context.scheduler.on_task(now, hotkey, task.task_id)
        _log.info("task pulled", extra={"validator": label(hotkey), "task": task.n, "prompt": task.log_id})
        return task

    async def _too_early(self, hotkey: str, answer: Answer[PullTask]) -> None:
        """A violation, by us or by someone who pulls in our name: the validator's answer is the truth."""
        context, until = self.context, float(answer.value.cooldown_until)
        learned = context.scheduler.lanes[hotkey].learned
        learned.offset.before(answer.sent, answer.received, until)
        context.metrics.violations.labels(label(hotkey)).inc()
        _log.warning(
            "pulled during a cooldown",
            extra={"validator": label(hotkey), "violations": answer.value.cooldown_violations},
        )
        context.scheduler.on_cooldown(context.clock(), hotkey, until)
        if hotkey in context.scheduler.lanes:
            await context.journal(Journal.save_validator, context.record(hotkey))

    def _start(self, task: Task, worker: Worker | None) -> None:
        work = asyncio.create_task(self.pipeline.run(task.n, worker), name=f"task {task.n}")
        self.running[task.n] = work
        self.tasks.add(work)

        def ended(finished: asyncio.Task[Any]) -> None:
            self.running.pop(task.n, None)
            self._ended(finished)
            self.wake()

        work.add_done_callback(ended)


def _puller(pull: Pull) -> str:
    """The name under which a pull holds a worker."""
    return f"pull {label(pull.hotkey)}"
