"""Handing a result to the node that the task came from, until the node has said what became of it.

At least once: whatever is not certainly stored is sent again, the same bytes under the same assignment.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from typing import Final

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import GivenUpReason, Outcome, TaskState

from sn17_miner.clients.gateway import Account, GatewayClient, Result
from sn17_miner.context import Context
from sn17_miner.core.receipt import GatewayError, Reading, Receipt, read_receipt
from sn17_miner.core.records import Assignment, Skip, Task
from sn17_miner.journal.journal import Journal

_log = logging.getLogger("sn17.miner.delivery")

_AGAIN: Final = Backoff(first=0.5, cap=15.0, jitter=0.2)
_GRACE: Final = 60.0
"""Seconds after the task's life in which a result is still tried: our estimate of its end may be early."""
_SUCCESS: Final = "Success"


@dataclass(slots=True)
class _Progress:
    """``lost`` answers: one of them may belong to a result that is stored."""

    lost: bool
    failures: int = 0
    broke: bool = False
    """The last sending ended without an answer."""


@dataclass(slots=True)
class Delivery:
    """Drives one delivery after another. ``accounts``: in whose name, by door."""

    context: Context
    client: GatewayClient
    accounts: dict[str, Account]

    async def run(self, task: Task, skip: Skip | None) -> Task:
        """Deliver the task's best result, or a failure for the reason ``skip``, until it is over."""
        context, progress = self.context, _Progress(lost=task.submits > 0)
        if task.state is TaskState.SUBMITTING:
            skip = task.skip
        while True:
            assignment, account = _assignment(task), self.accounts.get(task.door)
            if account is None:
                return await context.close(
                    task,
                    Outcome.GIVEN_UP,
                    f"the settings name no gateway {task.door} any more",
                    reason=GivenUpReason.GATEWAY_UNREACHABLE,
                )
            if context.clock() > assignment.expires_at + _GRACE:
                return await self._never(task, skip, progress)
            task, reading = await self._once(task, skip, assignment, account, broke=progress.broke)
            over = await self._settle(task, skip, progress, reading, account)
            if over is not None:
                context.wake()
                return over
            if reading.receipt is Receipt.REFUSED:
                skip = Skip(Outcome.GIVEN_UP, GivenUpReason.REFUSED_BY_GATEWAY)
            task = await context.journal(Journal.task, task.n)

    async def _once(
        self, task: Task, skip: Skip | None, assignment: Assignment, account: Account, *, broke: bool
    ) -> tuple[Task, Reading]:
        context, attempt = self.context, None if skip is not None else task.best
        asset, reason, told = None, "", ""
        if attempt is not None:
            assert attempt.spz is not None
            asset = await asyncio.to_thread(context.spool.read, attempt.spz)
            digest = await asyncio.to_thread(lambda: hashlib.sha256(asset).hexdigest())
            told = f"{len(asset)} bytes, sha256 {digest}"
        else:
            reason = told = _reason(skip)
        task = await context.journal(
            Journal.submit_started,
            task.n,
            submit_time=int(context.clock() * 1e9),
            attempt=attempt.number if attempt else None,
            skip=skip,
            detail=f"submission {task.submits + 1} to {assignment.node}: {told}",
        )
        result = Result(task.task_id, assignment.worker_id, assignment.token, asset, reason)
        try:
            await self.client.deliver(assignment.node, account, result, hold=broke)
        except GatewayError as error:
            return task, read_receipt(error)
        return task, read_receipt(None)

    async def _settle(
        self, task: Task, skip: Skip | None, progress: _Progress, reading: Reading, account: Account
    ) -> Task | None:
        """Act on one answer: the finished task, or None to try again after a wait."""
        context, receipt = self.context, reading.receipt
        progress.broke = receipt is Receipt.LOST and not reading.answered
        if receipt is Receipt.STORED:
            return await self._stored(task, skip, "stored by the gateway")
        await context.note(task, receipt.value, reading.detail)
        _log.info("delivery: %s", reading.detail, extra={"task": task.n, "door": task.door})
        if receipt in (Receipt.OVER, Receipt.NOT_OURS):
            return await self._final(task, skip, progress, reading, account)
        if receipt is Receipt.REFUSED:
            if skip is None:
                return None
            return await context.close(
                task, Outcome.GIVEN_UP, reading.detail, reason=GivenUpReason.REFUSED_BY_GATEWAY
            )
        progress.lost |= receipt is Receipt.LOST
        progress.failures += 1
        pause = _AGAIN.seconds(progress.failures, context.scheduler.rng)
        await asyncio.sleep(max(pause, reading.retry_after or 0.0))
        return None

    async def _stored(self, task: Task, skip: Skip | None, detail: str) -> Task:
        context = self.context
        took = context.clock() - task.assigned_at
        if skip is not None:
            told = f"{_reason(skip)}: told to the client"
            return await context.close(task, skip.outcome, told, reason=skip.reason)
        context.metrics.delivery.labels(task.door, "").observe(took)
        return await context.close(task, Outcome.ACCEPTED, f"{detail}; delivered in {took:.1f} s")

    async def _final(
        self, task: Task, skip: Skip | None, progress: _Progress, reading: Reading, account: Account
    ) -> Task:
        """401 or 410: nothing is sent again. After a lost answer both may mean that the result is stored."""
        context = self.context
        if skip is not None:
            return await context.close(task, skip.outcome, f"{skip}; {reading.detail}", reason=skip.reason)
        if not progress.lost:
            reason = (
                GivenUpReason.TASK_OVER
                if reading.receipt is Receipt.OVER
                else GivenUpReason.REFUSED_BY_GATEWAY
            )
            return await context.close(task, Outcome.GIVEN_UP, reading.detail, reason=reason)
        if await self._is_ours(task, account):
            return await self._stored(task, None, "an answer was lost; the gateway names us as its author")
        detail = f"stored or dropped, but an answer was lost; {reading.detail}"
        return await context.close(task, Outcome.GIVEN_UP, detail, reason=GivenUpReason.ANSWER_LOST)

    async def _is_ours(self, task: Task, account: Account) -> bool:
        """Whether clients are told of a success by us. Asked once: an answer that does not come is a no."""
        assignment = _assignment(task)
        try:
            told = await self.client.status(assignment.node, account, task.task_id)
        except GatewayError as error:
            await self.context.note(task, "asked for the status", str(error))
            return False
        await self.context.note(task, "asked for the status", f"{told.status} {told.worker_id or ''}".strip())
        return told.status == _SUCCESS and told.worker_id == assignment.worker_id

    async def _never(self, task: Task, skip: Skip | None, progress: _Progress) -> Task:
        if skip is not None:
            return await self.context.close(
                task, skip.outcome, f"{skip}; the gateway was not told in time", reason=skip.reason
            )
        return await self.context.close(
            task,
            Outcome.GIVEN_UP,
            f"no receipt within the task's life; {task.submits} submissions, {progress.failures} failed",
            reason=GivenUpReason.ANSWER_LOST if progress.lost else GivenUpReason.GATEWAY_UNREACHABLE,
        )


def _assignment(task: Task) -> Assignment:
    assert task.assignment is not None
    return task.assignment


def _reason(skip: Skip | None) -> str:
    """What the client is told: one of a fixed set of words."""
    if skip is None:
        return "no result"
    return (skip.reason.value if skip.reason else skip.outcome.value).replace("_", " ")
