"""Handing a result in until the validator has said what became of it."""

from __future__ import annotations

import asyncio
import base64
import logging
from dataclasses import dataclass
from typing import Final

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import GivenUpReason, Outcome, TaskState
from sn17_protocol import SubmitResults
from sn17_protocol.signing import sign_result

from sn17_miner.clients.axon import Answer
from sn17_miner.context import Context
from sn17_miner.core.records import Skip, Task
from sn17_miner.core.verdict import CallError, Reading, Standing, Terms, Verdict, read_answer, read_error
from sn17_miner.journal.journal import Journal
from sn17_miner.metrics import label

_log = logging.getLogger("sn17.miner.submission")

_LOCK_MARGIN: Final = 0.3
_UNPROCESSED_BEFORE_PULL: Final = 2
_LONGEST_PAUSE: Final = 60.0
_FAILURES_AFTER_LEAVING: Final = 6
"""So often a validator is tried that is no longer on the chain: some three minutes, in which it shows again
on a chain that was only read badly."""
_SURE: Final = 0.8
"""From this confidence on a lost answer is taken for an acceptance when the next pull is timed."""
_FINAL: Final = {
    Verdict.ACCEPTED: Outcome.ACCEPTED,
    Verdict.REPEATED: Outcome.ACCEPTED,
    Verdict.REJECTED: Outcome.REJECTED,
    Verdict.UNVALIDATED: Outcome.UNVALIDATED,
    Verdict.SKIPPED: Outcome.SKIPPED,
}


@dataclass(slots=True)
class _Progress:
    """What happened to this submission in this life of the process."""

    maybe_judged: bool
    """An earlier one may have been judged without our seeing the answer."""
    failures: int = 0
    unprocessed: int = 0


@dataclass(slots=True)
class Submission:
    """Drives one submission after another; holds no state of its own."""

    context: Context

    async def run(self, task: Task, skip: Skip | None) -> Task:
        """Submit the task's best result, or an empty one for the reason ``skip``, until it is over."""
        context = self.context
        resumed = task.state is TaskState.SUBMITTING
        if resumed:
            skip = task.skip
        progress = _Progress(maybe_judged=task.submits > 0)
        if resumed:
            await self._wait_for_lock(task)
        while True:
            since = max(task.pulled_at, context.started_at)
            late = context.clock() - since > context.policy.submit_deadline
            if late and task.submits:
                minutes = context.policy.submit_deadline / 60
                return await self._never(task, progress, f"no verdict in {minutes:.0f} min")
            if context.lane(task).leaving and progress.failures >= _FAILURES_AFTER_LEAVING:
                return await self._never(task, progress, "the validator has left the chain")
            task, reading, answer = await self._once(task, skip)
            over = await self._settle(task, skip, progress, reading, answer)
            if over is not None:
                return over

    async def _once(
        self, task: Task, skip: Skip | None
    ) -> tuple[Task, Reading, Answer[SubmitResults] | None]:
        context, lane = self.context, self.context.lane(task)
        attempt = None if skip is not None else task.best
        results = ""
        if attempt is not None:
            assert attempt.spz is not None
            spz = await asyncio.to_thread(context.spool.read, attempt.spz)
            results = (await asyncio.to_thread(base64.b64encode, spz)).decode()
        submit_time = context.clock_ns()
        signature = sign_result(
            context.keypair, submit_time=submit_time, prompt=task.prompt, validator_hotkey=task.validator
        )
        detail = f"submission {task.submits + 1}, {len(results)} characters to {lane.neuron.address}"
        task = await context.journal(
            Journal.submit_started,
            task.n,
            submit_time=submit_time,
            attempt=attempt.number if attempt else None,
            skip=skip,
            detail=detail if skip is None else f"{skip}: {detail}",
        )
        message = SubmitResults(
            task_id=task.task_id, results=results, submit_time=submit_time, signature=signature
        )
        try:
            answer = await context.axon.submit(lane.neuron, message)
        except CallError as error:
            context.answered(task.validator, error)
            return task, read_error(error), None
        context.answered(task.validator)
        offset = lane.learned.offset
        if answer.date is not None:
            offset.date_header(answer.sent, answer.received, answer.date)
        learned = lane.learned
        reading = read_answer(
            answer.value,
            skipped=skip is not None,
            resent=task.submits > 1,
            sent_theirs=answer.sent + offset.estimate,
            received_theirs=answer.received + offset.estimate,
            terms=Terms(learned.base_cooldown, learned.penalty, learned.throttle, lane.standing),
        )
        if answer.value.feedback is not None:
            lane.standing = Standing.of(answer.value.feedback)
        return task, reading, answer

    async def _settle(
        self,
        task: Task,
        skip: Skip | None,
        progress: _Progress,
        reading: Reading,
        answer: Answer[SubmitResults] | None,
    ) -> Task | None:
        """Act on one answer: the finished task, or None to try again after a wait."""
        context, verdict = self.context, reading.verdict
        if verdict in _FINAL and answer is not None:
            return await self._judged(task, skip, reading, answer)
        _log.info("submission: %s", reading.detail, extra={"task": task.n, "verdict": verdict.value})
        await context.note(task, verdict.value, reading.detail)
        if verdict is Verdict.GONE:
            return await self._gone(task, skip, progress)
        if verdict is Verdict.NOT_PROCESSED:
            progress.unprocessed += 1
            if progress.unprocessed >= _UNPROCESSED_BEFORE_PULL:
                progress.unprocessed = 0
                return await self._ask_which_task(task, skip)
            await self._wait_for_lock(task)
        elif verdict is Verdict.UNKNOWN:
            progress.maybe_judged = True
            await self._wait_for_lock(task)
        else:
            progress.failures += 1
            again = Backoff(context.policy.failure_rest, _LONGEST_PAUSE, context.policy.jitter)
            await asyncio.sleep(again.seconds(progress.failures, context.scheduler.rng))
        return None

    async def _wait_for_lock(self, task: Task) -> None:
        """Until the validator takes a submission of this task again: counted from the last one."""
        last = (task.submit_time or 0) / 1e9
        # The lock starts when the validator got it, which is any time until now.
        remaining = min(self.context.policy.lock, last + self.context.policy.lock - self.context.clock())
        await asyncio.sleep(max(0.0, remaining) + _LOCK_MARGIN)

    async def _judged(
        self, task: Task, skip: Skip | None, reading: Reading, answer: Answer[SubmitResults]
    ) -> Task:
        context, learned = self.context, self.context.lane(task).learned
        accepted = reading.verdict in (Verdict.ACCEPTED, Verdict.REPEATED)
        if reading.verdict is Verdict.REPEATED and task.submits == 1:
            _log.warning("another miner works with this hotkey", extra={"task": task.n})
        until = reading.cooldown_until or 0.0
        shift = learned.offset.estimate
        if reading.verdict is not Verdict.REPEATED:
            # A repetition does not tell when the cooldown began.
            learned.cooled(
                assigned=task.assigned_at + shift,
                ended=answer.received + shift,
                until=until,
                accepted=reading.verdict is not Verdict.REJECTED,
            )
        best = task.best
        if skip is None and reading.verdict is not Verdict.UNVALIDATED:
            learned.judge(accepted)
            if best is not None and best.signal is not None:
                learned.evidence.judged(best.signal.key, accepted=accepted, now=context.clock())
        if task.submits == 1 and best is not None and skip is None:
            working = sum((a.finished_at or a.started_at) - a.started_at for a in task.attempts)
            context.metrics.overhead.observe(max(0.0, answer.sent - task.pulled_at - working))
        outcome, reason = _FINAL[reading.verdict], None
        if skip is not None:
            outcome, reason = skip.outcome, skip.reason
        feedback = answer.value.feedback
        took = answer.received - task.assigned_at
        more = f"; delivered in {took:.1f} s ({task.throttle:g} s are free)"
        if feedback is not None and accepted:
            more += (
                f"; average {feedback.average_fidelity_score:.3f},"
                f" {feedback.generations_within_the_window} in the window,"
                f" rating {feedback.current_duel_rating:.0f}, reward {feedback.current_miner_reward:.1f}"
            )
        return await context.finish(
            task,
            outcome,
            reading.detail + more + (f"; {skip}" if skip else ""),
            reason=reason,
            score=reading.score,
            cooldown_until=until,
        )

    async def _gone(self, task: Task, skip: Skip | None, progress: _Progress) -> Task:
        """403: nothing is assigned to us."""
        context = self.context
        if skip is not None:
            outcome, reason = skip.outcome, skip.reason
            return await context.finish(
                task, outcome, f"{skip}; the validator holds no task for us", reason=reason
            )
        if not progress.maybe_judged:
            return await context.finish(
                task,
                Outcome.GIVEN_UP,
                "the validator dropped the task before it saw the result",
                reason=GivenUpReason.VALIDATOR_DROPPED,
            )
        until, why = self._assumed_cooldown(task)
        return await context.finish(
            task,
            Outcome.GIVEN_UP,
            f"judged or dropped, but the answer was lost; {why}",
            reason=GivenUpReason.ANSWER_LOST,
            cooldown_until=until,
        )

    def _assumed_cooldown(self, task: Task) -> tuple[float, str]:
        """The latest end, by the validator's clock, of the cooldown we were not told.

        Judged at the latest now. Whether it was accepted decides on the penalty; pulling too early would be
        a violation, waiting out a penalty that is not there would cost cycles.
        """
        context, learned = self.context, self.context.lane(task).learned
        theirs = context.clock() + learned.offset.estimate
        base, throttle = learned.base_cooldown + 1.0, learned.throttle
        until = max(theirs + base - throttle, task.assigned_at + base)
        best = task.best
        chance = min(best.confidence or 0.0, learned.acceptance) if best else 0.0
        if chance >= _SURE:
            return (
                until,
                f"taken for accepted (chance {chance:.2f}): pulling after {learned.base_cooldown:g} s",
            )
        return until + learned.penalty, f"taken for rejected (chance {chance:.2f}): waiting out the penalty"

    async def _ask_which_task(self, task: Task, skip: Skip | None) -> Task | None:
        """No verdict twice: either our task is still assigned, or another one is."""
        context, lane = self.context, self.context.lane(task)
        try:
            answer = await context.axon.pull(lane.neuron)
        except CallError as error:
            await context.note(task, "asked which task", str(error))
            await self._wait_for_lock(task)
            return None
        told = answer.value.task
        if told is not None and told.id == task.task_id:
            await context.note(task, "asked which task", "ours is still assigned")
            return None
        if told is not None:
            why, detail = GivenUpReason.VALIDATOR_DROPPED, "the validator has another task assigned to us"
        else:
            why, detail = GivenUpReason.ANSWER_LOST, "the validator has no task assigned to us any more"
        skip = skip or Skip(Outcome.GIVEN_UP, why)
        until = float(answer.value.cooldown_until) if told is None else 0.0
        if until:
            context.metrics.violations.labels(label(task.validator)).inc()
        return await context.finish(
            task, skip.outcome, detail, reason=skip.reason, cooldown_until=until or None
        )

    async def _never(self, task: Task, progress: _Progress, why: str) -> Task:
        lost = progress.maybe_judged
        return await self.context.finish(
            task,
            Outcome.GIVEN_UP,
            f"{why}; {task.submits} submissions, {progress.failures} of them failed",
            reason=GivenUpReason.ANSWER_LOST if lost else GivenUpReason.VALIDATOR_UNREACHABLE,
        )
