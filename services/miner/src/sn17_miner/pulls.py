"""Asking validators for tasks, as the scheduler planned it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sn17_contract.tasks import VALIDATORS, Phase, TaskKind
from sn17_protocol import PullTask

from sn17_miner.clients.axon import Answer
from sn17_miner.context import Context
from sn17_miner.core.fleet import Worker
from sn17_miner.core.records import Task
from sn17_miner.core.scheduler import Pull
from sn17_miner.core.verdict import CallError
from sn17_miner.generation import holder
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError
from sn17_miner.metrics import label

_log = logging.getLogger("sn17.miner")


@dataclass(slots=True)
class ValidatorPulls:
    """``start`` carries a task on with the worker that is held for it; ``counted`` hears of a new one."""

    context: Context
    start: Callable[[Task, Worker | None], None]
    counted: Callable[[], None]

    async def run(self, pull: Pull, worker: Worker) -> None:
        """One pull. ``worker`` is held for it under the name ``puller``, and goes back or to the task."""
        with self.context.pool.held(worker, puller(pull)):
            await self._call(pull, worker)

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
                self.start(task, worker)
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
            self.counted()
            context.metrics.pulled.labels(VALIDATORS, label(hotkey), task.kind).inc()
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


def puller(pull: Pull) -> str:
    """The name under which a pull holds a worker."""
    return f"pull {label(pull.hotkey)}"
