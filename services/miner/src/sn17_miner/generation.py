"""From a pulled task to a result worth handing in, or the reason why there is none."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from dataclasses import dataclass
from typing import IO, Final

from sn17_contract.backoff import Backoff
from sn17_contract.fixer import FixReport
from sn17_contract.tasks import Failure, GivenUpReason, Lane, Signal, TaskKind

from sn17_miner.clients.fixer import FixerBusyError, SplatRefusedError
from sn17_miner.clients.scorer import ScorerError
from sn17_miner.clients.worker import (
    Generated,
    JobInput,
    PromptRefusedError,
    SeedFailedError,
    WorkerBrokenError,
    WorkerError,
    WorkerLostError,
    WorkerRefusedError,
)
from sn17_miner.context import Context
from sn17_miner.core import gate
from sn17_miner.core.client_gate import ClientSituation, choose_for_client
from sn17_miner.core.evidence import signal_of
from sn17_miner.core.fleet import Worker
from sn17_miner.core.images import image_bytes
from sn17_miner.core.records import Attempt, ResultSignal, Task
from sn17_miner.core.sources import worker_seed
from sn17_miner.journal.journal import Journal

_log = logging.getLogger("sn17.miner.generation")

MAX_FAILURES: Final = 4
"""Generations that may be lost on workers before the prompt itself is suspected."""
MAX_FIXER_FAILURES: Final = 20
_REJOINS: Final = 2
_ANOTHER_SEED_WAIT: Final = 1.0
"""Seconds to wait for a worker when there is a result to fall back on."""
_LONGEST_FIXER_REST: Final = 10.0
_TICK: Final = 0.25


class GiveUpError(Exception):
    """No result will be handed in for this reason."""

    def __init__(self, reason: GivenUpReason | None, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        """None: the task's own time is over."""
        self.detail = detail


class WorkerHungError(WorkerError):
    """The job makes no progress, or the worker is gone."""


@dataclass(slots=True)
class Generation:
    """Drives one task after another; holds no state of its own."""

    context: Context

    async def generate(self, task: Task, worker: Worker | None) -> Task:
        """One generation, new or resumed. ``worker`` is held for the task already. Raises GiveUpError."""
        pool, attempt = self.context.pool, task.running
        with pool.held(worker, holder(task.n)):
            if attempt is not None:
                return await self._resumed(task, attempt)
            self._within_bounds(task)
            async with pool.lease(holder(task.n), task.kind, self._patience(task), held=worker) as free:
                if free is None:
                    raise GiveUpError(
                        GivenUpReason.NO_WORKER, f"no healthy worker came free for a {task.kind} task"
                    )
                choice = self.context.sampling(task)
                if choice.lane is Lane.FAST:
                    await self.context.note(task, "fast lane", choice.why)
                attempt = await self.context.journal(
                    Journal.attempt_started,
                    task.n,
                    worker=free.url,
                    boot_id=free.status.boot_id if free.status else "",
                    seed=seed_of(task),
                    round_=task.rounds,
                    enhanced=task.enhanced_next(self.context.policy.max_seeds),
                    lane=choice.lane,
                )
                return await self._run(task, attempt, free)

    async def _resumed(self, task: Task, attempt: Attempt) -> Task:
        """The generation that ran when we stopped: the same key joins it on its worker."""
        context = self.context
        patience = context.policy.worker_lost
        async with context.pool.lease(holder(task.n), task.kind, patience, url=attempt.worker) as worker:
            if worker is None:
                error = "its worker is gone since the restart"
                return await context.journal(Journal.attempt_failed, attempt, Failure.LOST, error)
            await context.journal(Journal.attempt_resumed, attempt, f"same key to {worker.name}")
            return await self._run(task, attempt, worker)

    def _within_bounds(self, task: Task) -> None:
        context = self.context
        if task.lost >= MAX_FAILURES:
            raise GiveUpError(
                GivenUpReason.GENERATION_FAILED, f"{task.lost} generations were lost on workers"
            )
        if task.rounds >= context.policy.max_seeds:
            raise GiveUpError(GivenUpReason.EMPTY_STRUCTURE, f"{task.rounds} seeds gave no usable splat")
        if not context.pool.fleet.serves(task.kind, context.monotonic()):
            raise GiveUpError(
                GivenUpReason.NO_WORKER,
                f"none of {len(context.pool.fleet.workers)} known workers does {task.kind} tasks",
            )
        ran = any(attempt.failure not in (Failure.REFUSED, Failure.LANE) for attempt in task.attempts)
        left = context.left(task)
        if left <= (context.durations.expected(task.kind) if ran else -1.0):
            raise GiveUpError(None, f"{left:.1f} s left are too few for a generation")

    def _patience(self, task: Task) -> float:
        """Seconds to wait for a worker."""
        left = self.context.left(task)
        return left if task.best is None else min(left, _ANOTHER_SEED_WAIT)

    async def _run(self, task: Task, attempt: Attempt, worker: Worker) -> Task:
        context = self.context
        name = f"{task.n}.{attempt.number}.ply"
        started = context.monotonic()
        file = context.spool.create(name)
        try:
            generated = await self._generated(attempt, await self._job(task, attempt), worker, file)
            await asyncio.to_thread(context.spool.commit, name, file)
        except WorkerError as error:
            context.spool.discard(name, file)
            return await self._failed(task, attempt, worker, error)
        except BaseException:
            context.spool.discard(name, file)
            raise
        seconds = context.monotonic() - started
        lane = generated.lane
        context.durations.generated(task.kind, seconds, lane)
        context.metrics.lanes.labels(task.door, lane.value).inc()
        detail = f"{generated.bytes} bytes, {generated.gaussians} gaussians, {seconds:.1f} s on {worker.name}"
        detail += ", fast lane" if lane is Lane.FAST else ""
        return await context.journal(Journal.attempt_generated, attempt, ply=name, detail=detail, lane=lane)

    async def _generated(self, attempt: Attempt, job: JobInput, worker: Worker, file: IO[bytes]) -> Generated:
        """One job. A broken connection does not end it: the same key joins it, or gets its kept result."""
        for rejoins in range(_REJOINS + 1):
            try:
                return await self._watched(worker, job, file)
            except WorkerLostError as error:
                if rejoins == _REJOINS:
                    raise
                await self.context.pool.poll(worker.url)
                status = worker.status
                if worker.last_error is not None or status is None or status.boot_id != attempt.boot_id:
                    raise
                await self.context.journal(Journal.attempt_resumed, attempt, f"same key again: {error}")
                file.seek(0)
                file.truncate()
        raise AssertionError

    async def _job(self, task: Task, attempt: Attempt) -> JobInput:
        prompt = task.sent_prompt if attempt.enhanced and task.sent_prompt is not None else task.prompt
        if task.kind is TaskKind.TEXT:
            return JobInput(attempt.key, attempt.seed, prompt=prompt, lane=attempt.lane)
        try:
            image = await asyncio.to_thread(image_bytes, prompt)
        except ValueError as error:
            raise PromptRefusedError(f"bad_image: {error}") from error
        return JobInput(attempt.key, attempt.seed, image=image, lane=attempt.lane)

    async def _watched(self, worker: Worker, job: JobInput, file: IO[bytes]) -> Generated:
        """Run the job and leave it when nothing moves: no progress told, no byte received."""
        context, policy = self.context, self.context.policy
        run = asyncio.ensure_future(context.workers.generate(worker.url, job, file))
        started = last = context.monotonic()
        boot_id, size = worker.status.boot_id if worker.status else None, 0
        try:
            while True:
                done, _ = await asyncio.wait({run}, timeout=_TICK)
                if done:
                    return run.result()
                now = context.monotonic()
                if (written := file.tell()) != size:
                    size, last = written, now
                if worker.moved_at > started:
                    last = max(last, worker.moved_at)
                if worker.status is not None and boot_id is not None and worker.status.boot_id != boot_id:
                    raise WorkerHungError("the worker was restarted")
                silent = now - (worker.seen_at or started)
                if worker.last_error is not None and silent > policy.worker_lost and size == 0:
                    raise WorkerHungError(
                        f"the worker has been unreachable for {silent:.1f} s: {worker.last_error}"
                    )
                if now - last > policy.stall:
                    raise WorkerHungError(f"no progress for {now - last:.1f} s")
        finally:
            if not run.done():
                run.cancel()
                with contextlib.suppress(asyncio.CancelledError, WorkerError):
                    await run

    async def _failed(self, task: Task, attempt: Attempt, worker: Worker, error: WorkerError) -> Task:
        context, now = self.context, self.context.monotonic()
        fail = Journal.attempt_failed
        if isinstance(error, PromptRefusedError) and attempt.lane is Lane.FAST:
            # A worker without a calibration refuses the lane; if it is the prompt, the exact lane will tell.
            context.metrics.decisions.labels("exact lane").inc()
            return await context.journal(fail, attempt, Failure.LANE, str(error))
        if isinstance(error, PromptRefusedError):
            task = await context.journal(fail, attempt, Failure.PROMPT, str(error))
            if attempt.enhanced:
                await context.note(task, "original prompt", "the worker refused the enhanced one")
                return task
            raise GiveUpError(GivenUpReason.BAD_PROMPT, str(error))
        if isinstance(error, SeedFailedError):
            context.metrics.decisions.labels("another seed").inc()
            return await context.journal(fail, attempt, Failure.SEED, str(error))
        context.metrics.decisions.labels("move").inc()
        if isinstance(error, WorkerRefusedError):
            if error.state is not None:
                context.pool.fleet.refused(worker.url, error.state, now)
            else:
                rest = min(error.retry_after or context.policy.worker_rest, context.policy.longest_rest)
                context.pool.fleet.rest(worker.url, rest, f"refused: {error.code}", now)
            return await context.journal(fail, attempt, Failure.REFUSED, str(error))
        # A broken worker is tried again soon, so that a fleet of one goes on; others are preferred meanwhile.
        context.pool.fleet.rest(worker.url, context.policy.worker_rest, f"failed: {error}", now)
        if isinstance(error, WorkerHungError | WorkerLostError):
            await context.workers.cancel(worker.url, attempt.key)
        kind = Failure.BROKEN if isinstance(error, WorkerBrokenError) else Failure.LOST
        _log.warning("generation failed: %s", error, extra={"worker": worker.url, "task": task.n})
        return await context.journal(fail, attempt, kind, str(error))

    # --- fixing and judging ---------------------------------------------------------------------

    async def fix(self, task: Task) -> Task:
        """Send the splat through the fixer and have the gate estimate its chances. Raises GiveUpError."""
        context = self.context
        attempt = task.unfixed
        assert attempt is not None
        assert attempt.ply is not None
        name = f"{task.n}.{attempt.number}.spz"
        started, again = context.monotonic(), Backoff(context.policy.fixer_rest, _LONGEST_FIXER_REST)
        for failures in range(1, MAX_FIXER_FAILURES + 1):
            ply = context.spool.existing(attempt.ply)
            file = context.spool.create(name)
            try:
                report = await context.fixer.fix(ply, file)
                await asyncio.to_thread(context.spool.commit, name, file)
                break
            except SplatRefusedError as error:
                context.spool.discard(name, file)
                context.spool.remove(attempt.ply)
                context.metrics.decisions.labels("move").inc()
                return await context.journal(Journal.attempt_failed, attempt, Failure.BROKEN, str(error))
            except FixerBusyError as error:
                context.spool.discard(name, file)
                await context.note(task, "fixer busy", str(error))
            except BaseException:
                context.spool.discard(name, file)
                raise
            if self.context.left(task) <= 0:
                raise GiveUpError(GivenUpReason.FIXER_UNAVAILABLE, "the fixer did not answer in time")
            await asyncio.sleep(again.seconds(failures))
        else:
            raise GiveUpError(GivenUpReason.FIXER_UNAVAILABLE, f"the fixer failed {MAX_FIXER_FAILURES} times")
        score = await self._score(task, name)
        signal, now = signal_of(report, score), context.clock()
        evidence = context.learned(task).evidence
        evidence.drawn(signal, again=task.best is not None, now=now)
        chance = evidence.belief(signal, threshold=task.threshold, now=now).mean
        context.durations.finished(context.monotonic() - started)
        fixed = await context.journal(
            Journal.attempt_fixed,
            attempt,
            spz=name,
            report=report.model_dump_json()[:4096],
            signal=ResultSignal.of(signal),
            confidence=chance,
            detail=_described(report, signal, chance),
        )
        context.spool.remove(attempt.ply)
        return fixed

    async def _score(self, task: Task, name: str) -> float | None:
        if self.context.scorer is None:
            return None
        spz = await asyncio.to_thread(self.context.spool.read, name)
        try:
            return await self.context.scorer.score(kind=task.kind, prompt=task.prompt, spz=spz)
        except ScorerError as error:
            await self.context.note(task, "no score", str(error))
            return None

    def choose(self, task: Task, *, over: bool = False) -> gate.Choice:
        """Hand the best result in, try another seed, or skip; ``over``: there is no other seed."""
        context, best = self.context, task.best
        assert best is not None
        seeds = 0 if over or task.lost >= MAX_FAILURES else context.policy.max_seeds - task.rounds
        worker_free = bool(context.pool.fleet.free(context.monotonic(), kind=task.kind))
        if task.assignment is not None:
            return choose_for_client(
                ClientSituation(
                    signal=best.signal.kind if best.signal else Signal.HEALTHY,
                    generation=context.durations.expected(task.kind),
                    left=context.left(task),
                    seeds_left=seeds,
                    worker_free=worker_free,
                )
            )
        learned, now = context.lane(task).learned, context.clock()
        situation = gate.Situation(
            signal=best.signal.key if best.signal else Signal.HEALTHY.value,
            threshold=task.threshold,
            penalty=learned.penalty,
            throttle=task.throttle,
            elapsed=now - task.assigned_at,
            generation=context.durations.expected(task.kind),
            left=context.left(task),
            seeds_left=seeds,
            worker_free=worker_free,
            now=now,
        )
        choice = gate.choose(situation, learned.outlook(now), learned.evidence)
        if choice.step is gate.Step.RETRY:
            learned.evidence.passed_over(situation.signal, now=now)
        else:
            handed_in = choice.step is gate.Step.SUBMIT
            learned.evidence.decided(situation.signal, handed_in=handed_in, now=now)
        return choice


def holder(n: int) -> str:
    """The name under which a task holds a worker."""
    return f"task {n}"


def seed_of(task: Task) -> int:
    """The seed of the next generation: the one that a gateway's client asked for, then others, which follow
    from the task, so that they are the same on every worker it may move to.
    """
    if task.assignment is not None and task.rounds == 0:
        return worker_seed(task.assignment.seed)
    digest = hashlib.sha256(f"{task.task_id}/{task.rounds}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _described(report: FixReport, signal: str, chance: float) -> str:
    reasons = f" ({', '.join(report.reasons[:5])})" if report.reasons else ""
    found = f"{report.verdict.value}{reasons}, {report.gaussians_out} gaussians"
    return f"{found}; {signal}: confidence {chance:.2f}"
