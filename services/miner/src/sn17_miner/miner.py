"""The miner: pulls when the scheduler says so, keeps every task going, survives whatever fails."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import TaskKind, TaskState
from sn17_protocol import ChainSnapshot, Neuron

from sn17_miner.chain.feed import ChainFeed
from sn17_miner.clients.web import short
from sn17_miner.context import Context
from sn17_miner.core.doors import Doors
from sn17_miner.core.fleet import Worker
from sn17_miner.core.learning import Learned
from sn17_miner.core.records import Task
from sn17_miner.core.scheduler import FreeWorker
from sn17_miner.gateways import Gateways, asker
from sn17_miner.journal.journal import Journal
from sn17_miner.metrics import label
from sn17_miner.pipeline import Pipeline
from sn17_miner.pulls import ValidatorPulls, puller

_log = logging.getLogger("sn17.miner")

_LONGEST_SLEEP: Final = 1.0
"""The wall clock may be set while we sleep on the monotonic one."""
_HOUSEKEEPING_SECONDS: Final = 60.0
_LONGEST_HORIZON: Final = 60.0
_RESTART: Final = Backoff(first=1.0, cap=60.0)


@dataclass(slots=True)
class Limits:
    """Of what is kept, and when to end."""

    max_tasks: int | None
    keep_seconds: float
    keep_tasks: int
    skew_alarm: float
    scale_ahead: float
    """Seconds that a worker needs to start, for the number of workers that could be at work."""


@dataclass(slots=True)
class Miner:
    """``paused`` gives a reason for not pulling (a drain lease); ``done`` is called when ``max_tasks`` are
    finished; ``settled`` once after the journal has been resumed.
    """

    context: Context
    pipeline: Pipeline
    feed: ChainFeed
    gateways: Gateways
    doors: Doors
    limits: Limits
    paused: Callable[[], str | None]
    done: Callable[[], None]
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    pulled: int = 0
    pulling: int = 0
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    running: dict[int, asyncio.Task[Any]] = field(default_factory=dict)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    open_by_door: Counter[str] = field(default_factory=Counter)
    doors_of: dict[int, str] = field(default_factory=dict)
    """Of the tasks that run."""
    why_not_pulling: str | None = "starting"
    """Why validators are not asked."""
    why_idle: str | None = "starting"
    """Why nobody is asked."""
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
            self.gateways.run(self.supervise)
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
        context.metrics.known(context.scheduler.lanes)
        removed = await asyncio.to_thread(context.spool.sweep, await context.journal(Journal.payloads))
        tasks = await context.journal(Journal.open_tasks)
        for task in tasks:
            if task.assignment is None:
                context.scheduler.resume(now, task.validator, task.task_id)
            self.start(task, None)
        if tasks or removed:
            _log.info("resumed", extra={"tasks": len(tasks), "stray_files_removed": removed})

    async def _housekeeping(self) -> None:
        context = self.context
        while True:
            self.spool_bytes = await asyncio.to_thread(context.spool.used)
            self.spool_full = await asyncio.to_thread(context.disk_full)
            await context.journal(
                Journal.prune, max_age=self.limits.keep_seconds, max_tasks=self.limits.keep_tasks
            )
            if self.feed.snapshot is not None:
                await context.journal(Journal.forget_validators, frozenset(context.scheduler.lanes))
            self.counts = await context.journal(Journal.counts)
            self.gateways.open_tasks = await context.journal(Journal.open_by_node)
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
        self.context.metrics.known(report.added)
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
        free = context.pool.fleet.free(monotonic)[: self._allowed()]
        slots = [FreeWorker(w.url, now - (monotonic - (w.free_since or monotonic))) for w in free]
        plan = self.doors.plan(now, slots, horizon=self._horizon(), validators=self.why_not_pulling is None)
        hold = context.pool.fleet.hold
        for pull in plan.pulls:
            worker = hold(pull.worker, puller(pull), monotonic)
            self._call(1, ValidatorPulls(context, self.start, self.count).run(pull, worker))
        for errand in plan.errands:
            name = asker(errand.order)
            workers = [hold(worker.name, name, monotonic) for worker in errand.workers]
            self._call(errand.order.count, self.gateways.pull(errand.order, workers))
        over = self.limits.max_tasks is not None and self.pulled >= self.limits.max_tasks
        if over and not self.running and not self.pulling:
            self.done()
        return _LONGEST_SLEEP if plan.wake_at is None else min(_LONGEST_SLEEP, max(0.0, plan.wake_at - now))

    def _call(self, tasks: int, work: Coroutine[Any, Any, None]) -> None:
        """Run a call that may bring so many tasks."""

        async def counted() -> None:
            try:
                await work
            finally:
                self.pulling -= tasks
                self.wake()

        self.pulling += tasks
        call = self.spawn("pull", counted())
        self.calls.add(call)
        call.add_done_callback(self.calls.discard)

    def _horizon(self) -> float:
        """Seconds that a worker given away now is busy for."""
        return min(_LONGEST_HORIZON, self.context.durations.expected(TaskKind.TEXT))

    def _allowed(self) -> int | None:
        """How many more tasks may be asked for, and say so when none may."""
        reason = self.closed() or self._no_worker()
        self.why_not_pulling = reason or self.unregistered()
        # Gateways do not care who is registered on the subnet.
        self.why_idle = reason if self.gateways.sources else self.why_not_pulling
        if self.why_not_pulling != self._said:
            self._said = self.why_not_pulling
            _log.warning("not pulling: %s", self._said) if self._said else _log.info("pulling again")
        if reason is not None:
            return 0
        if self.limits.max_tasks is None:
            return None
        return max(0, self.limits.max_tasks - self.pulled - self.pulling)

    def closed(self) -> str | None:
        """Why nobody may be asked even where a worker is free."""
        return self.paused() or self.spool_full

    def unregistered(self) -> str | None:
        """Why validators have nothing for this hotkey."""
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

    def count(self) -> None:
        """A new task has come."""
        self.pulled += 1

    def start(self, task: Task, worker: Worker | None) -> None:
        """Carry a task of the journal on; ``worker`` is held for it."""
        work = asyncio.create_task(self.pipeline.run(task.n, worker), name=f"task {task.n}")
        self.running[task.n] = work
        self.open_by_door[task.door] += 1
        self.doors_of[task.n] = task.door
        self.tasks.add(work)

        def ended(finished: asyncio.Task[Any]) -> None:
            self.running.pop(task.n, None)
            self.doors_of.pop(task.n, None)
            self.open_by_door[task.door] -= 1
            self._ended(finished)
            self.wake()

        work.add_done_callback(ended)
