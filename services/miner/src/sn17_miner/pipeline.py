"""One task from the pull to its outcome, resumable at every step: the journal says where it stands."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Final

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import Failure, GivenUpReason, Outcome, Signal, TaskState

from sn17_miner.context import Context
from sn17_miner.core import gate
from sn17_miner.core.fleet import Worker
from sn17_miner.core.records import ResultSignal, Skip, Task
from sn17_miner.delivery import Delivery
from sn17_miner.generation import Generation, GiveUpError, holder
from sn17_miner.journal.journal import Journal
from sn17_miner.prompts import Enhancer
from sn17_miner.spool import SpoolError, is_disk_full
from sn17_miner.submission import Submission

_log = logging.getLogger("sn17.miner.pipeline")

_AGAIN: Final = Backoff(first=1.0, cap=60.0)


@dataclass(slots=True)
class Pipeline:
    """``run`` any number of tasks side by side."""

    context: Context
    enhancer: Enhancer
    delivery: Delivery

    async def run(self, n: int, worker: Worker | None = None) -> Task:
        """Carry task ``n`` to its end. ``worker`` is held for it.

        An exception that should not happen is counted, written down and tried again with back-off: a task
        in the journal is never abandoned.
        """
        context, failures = self.context, 0
        while True:
            try:
                with context.pool.held(worker, holder(n)):
                    return await self._run(n, worker)
            except Exception as error:
                failures += 1
                context.metrics.errors.labels("task").inc()
                if is_disk_full(error):
                    await self._make_room(n, error)
                else:
                    _log.exception("task failed and is resumed", extra={"task": n})
                await self._tell(n, error)
            worker = None
            await asyncio.sleep(_AGAIN.seconds(failures))

    async def _run(self, n: int, worker: Worker | None) -> Task:
        context = self.context
        task = await context.journal(Journal.task, n)
        generation = Generation(context)
        submission = Submission(context) if task.assignment is None else self.delivery
        if task.state is TaskState.PULLED and not task.attempts and task.sent_prompt is None:
            task = await self._enhance(task)
        while task.state is not TaskState.DONE:
            try:
                if task.state in (TaskState.PULLED, TaskState.GENERATING):
                    held, worker = worker, None
                    task = await generation.generate(task, held)
                elif task.state is TaskState.GENERATED:
                    task = await generation.fix(task)
                elif task.state is TaskState.FIXED:
                    task = await self._decide(task, generation, submission)
                else:
                    task = await submission.run(task, None)
            except GiveUpError as over:
                task = await self._give_up(task, over, generation, submission)
            except SpoolError as error:
                task = await self._payload_lost(n, error)
        return task

    async def _enhance(self, task: Task) -> Task:
        change = await self.enhancer.enhance(task)
        if change is None:
            return task
        self.context.metrics.decisions.labels("enhanced").inc()
        return await self.context.journal(
            Journal.enhanced, task.n, kind=change.kind, sent_prompt=change.prompt, detail=change.detail
        )

    async def _decide(self, task: Task, generation: Generation, submission: Submission | Delivery) -> Task:
        choice = generation.choose(task)
        await self.context.note(task, f"gate: {choice.step.value}", choice.detail)
        if choice.step is gate.Step.RETRY:
            return await generation.generate(task, None)
        return await submission.run(task, _skip(task) if choice.step is gate.Step.SKIP else None)

    async def _give_up(
        self, task: Task, over: GiveUpError, generation: Generation, submission: Submission | Delivery
    ) -> Task:
        """Hand in what there is, if it may be accepted; else say that there is none."""
        task = await self.context.journal(Journal.task, task.n)
        await self.context.note(task, "give up", over.detail)
        if task.best is not None:
            choice = generation.choose(task, over=True)
            await self.context.note(task, f"gate: {choice.step.value}", choice.detail)
            return await submission.run(task, None if choice.step is gate.Step.SUBMIT else _skip(task))
        outcome = Outcome.EXPIRED if over.reason is None else Outcome.GIVEN_UP
        return await submission.run(task, Skip(outcome, over.reason))

    async def _payload_lost(self, n: int, error: SpoolError) -> Task:
        """Someone, or a fault, took it from the disk: the generation counts as lost and is repeated."""
        task = await self.context.journal(Journal.task, n)
        attempt = task.unfixed or task.best
        if attempt is None:
            raise error
        _log.error("%s", error, extra={"task": n})
        return await self.context.journal(Journal.attempt_failed, attempt, Failure.LOST, str(error))

    async def _make_room(self, n: int, error: Exception) -> None:
        """What is kept for people to look at must not stop the work."""
        dropped = await asyncio.to_thread(self.context.kept.clear)
        _log.error(
            "the disk is full, the task is tried again; %d kept assets are dropped: %s",
            dropped,
            error,
            extra={"task": n},
        )

    async def _tell(self, n: int, error: Exception) -> None:
        try:
            await self.context.journal(Journal.note, n, "internal error", type(error).__name__)
        except Exception as failed:
            if not is_disk_full(failed):
                _log.exception("the journal does not take notes", extra={"task": n})


def _skip(task: Task) -> Skip:
    """Why the best there is is not handed in."""
    if task.best is not None and task.best.signal == ResultSignal(Signal.UNREPAIRABLE):
        return Skip(Outcome.GIVEN_UP, GivenUpReason.UNREPAIRABLE)
    return Skip(Outcome.SKIPPED)
