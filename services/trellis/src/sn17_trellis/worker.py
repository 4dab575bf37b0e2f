"""The worker: what it takes, how a job runs, when it cleans up, degrades or ends itself."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from sn17_contract.admin import Canary
from sn17_contract.http import Code, WorkerState
from sn17_contract.kubernetes import MODEL_MISSING
from sn17_contract.metrics import GenerationKind, GenerationOutcome
from sn17_service import Problem, Service, return_heap

from sn17_trellis.admission import BUSY_RETRY_SECONDS, Admission
from sn17_trellis.backend import (
    Backend,
    Cancelled,
    DeviceError,
    Generation,
    GpuOutOfMemory,
    Job,
    ModelMissing,
    UnusableOutput,
)
from sn17_trellis.canary import CanaryBook, not_run
from sn17_trellis.degradation import Degradation
from sn17_trellis.encode import Encoded, encode, keep
from sn17_trellis.guard import Guard, Headroom, SelfRecycle, Thresholds
from sn17_trellis.jobs import Jobs, Running
from sn17_trellis.life_observer import LifeObserver
from sn17_trellis.metrics import RecentTasks, WorkerMetrics
from sn17_trellis.model_process.lives import InSwap, Lives, OneLife
from sn17_trellis.outcomes import failure
from sn17_trellis.picture import decoded
from sn17_trellis.settings import WorkerSettings
from sn17_trellis.spool import Spool, StoredResult
from sn17_trellis.thread import WorkThread
from sn17_trellis.upkeep import Upkeep

TICK_SECONDS: Final = 1.0
ADMIN_WAIT_SECONDS: Final = 120.0


class Worker:
    """Owns backend, guard and spool. Everything public may be called from any thread."""

    def __init__(
        self,
        service: Service,
        settings: WorkerSettings,
        backend: Backend,
        *,
        lives: Lives | None = None,
        recent: RecentTasks | None = None,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._service = service
        self._settings = settings
        self.backend = backend
        self._log = logging.getLogger("sn17.trellis")
        self._jobs = Jobs()
        self.lives: Lives = lives or OneLife(service.boot_id)
        self._beat: Callable[[], None] = lambda: None
        self._tail = ThreadPoolExecutor(1, thread_name_prefix="tail")
        self._thread: WorkThread[Running] = WorkThread(
            start=self._start,
            work=self._work,
            idle=self._idle,
            close=backend.close,
            failed=self._thread_failed,
            tick_seconds=tick_seconds,
        )
        self.spool = Spool(
            settings.spool_dir / "results",
            ttl_seconds=settings.result_ttl_seconds,
            keep=settings.results_kept,
            clock=service.clock,
        )
        self.recent = recent or RecentTasks(service.monotonic)
        recycles = SelfRecycle(
            settings.spool_dir / "self-recycles.json",
            after_seconds=settings.self_recycle_after_seconds,
            interval_seconds=settings.self_recycle_interval_seconds,
            clock=service.clock,
        )
        self._guard = Guard(
            Thresholds(settings.guard_cleanup_ratio, settings.guard_refuse_ratio),
            enabled=settings.guard == "on",
            read=service.read_memory,
            cleanup=self._free,
            monotonic=service.monotonic,
            resting=lambda: self.lives.resting,
        )
        self._metrics = WorkerMetrics(
            service.registry,
            self.recent,
            gpu_memory=backend.gpu_memory,
            self_recycles=lambda: recycles.count,
            jobs_in_flight=lambda: self._jobs.count,
            failing=lambda: self.lives.failing is not None,
        )
        self._judge = Degradation(CanaryBook(settings.spool_dir / "canary"), self._metrics)
        self._admission = Admission(service, self._guard, self._judge, self._jobs, self.recent, self.lives)
        self._upkeep = Upkeep(
            service, settings, self._guard, self._judge, self.lives, recycles, random=random.random
        )
        self.left_alone = self._upkeep.left_alone
        self.lives.watch(
            LifeObserver(service, self.recent, self._judge, self._guard, self._upkeep, self._metrics)
        )

    # --- what others see --------------------------------------------------------------------------

    @property
    def models(self) -> tuple[str, ...]:
        return self.backend.models if self._admission.started else ()

    @property
    def active(self) -> Running | None:
        """The job that is being generated."""
        return self._jobs.active

    @property
    def jobs_in_flight(self) -> int:
        """Jobs being generated or encoded."""
        return self._jobs.count

    @property
    def degraded(self) -> str | None:
        return self._judge.degraded.reason if self._judge.degraded else None

    @property
    def state(self) -> WorkerState:
        """As :attr:`Admission.state`."""
        return self._admission.state

    def refusal(self) -> Problem | None:
        """Why a new job would be refused now."""
        return self._admission.refusal()

    def not_ready(self) -> tuple[bool, str]:
        """Readiness check."""
        return self._admission.not_ready()

    def find(self, key: str) -> Running | StoredResult | None:
        """The job or the kept result of an idempotency key."""
        return self._jobs.find(key) or self.spool.find(key)

    # --- what others ask --------------------------------------------------------------------------

    def start(self) -> None:
        # A model process that hangs is given up by itself: it is no reason to end the service.
        if not self.lives.separate:
            self._beat = self._service.health.watch("worker_thread", self._settings.stall_seconds)
        self._thread.start()

    def submit(self, running: Running) -> None:
        """Take a job; its ``done`` gets the result or a Problem.

        Raises:
            Problem: it is refused.
        """
        refusal = self.refusal()
        if refusal is None and running.job.model not in self.backend.models:
            refusal = Problem(
                Code.BAD_REQUEST,
                f"this worker has no {running.job.model} model, only: {', '.join(self.backend.models)}",
            )
        if refusal is not None:
            raise refusal
        if not self._claim(running):
            raise self._admission.busy("one job at a time")
        if not self._thread.offer(running):
            self._jobs.drop()
            raise Problem(Code.DRAINING, "the worker is ending; use another worker")

    def cancel(self, key: str) -> str | None:
        """Cancel the job of a key (``cancelled``) or drop its result (``removed``); None if unknown."""
        found = self.find(key)
        if isinstance(found, Running):
            found.cancel.set()
            return "cancelled"
        return "removed" if self.spool.remove(key) else None

    def cleanup(self) -> None:
        """Free what can be freed, after the job at work. Blocks."""
        self._wait_for(self._thread.call(self._free))

    def canary(self) -> Canary:
        """Run the canary after the job at work and judge it. Blocks."""
        result: Canary = self._wait_for(self._thread.call(self.run_canary))
        return result

    def pending(self) -> list[Future[StoredResult]]:
        """The ends of all tasks in flight."""
        return self._jobs.pending()

    def cancel_all(self) -> None:
        self._jobs.cancel_all()

    def close(self, timeout: float) -> None:
        """End the thread and every model process; whatever still hangs there dies with the process."""
        if not self._thread.close(timeout):
            self._log.warning("the worker thread is still busy and is left behind")
        self.lives.kill()
        self._tail.shutdown(wait=False, cancel_futures=True)
        self._service.health.unwatch("worker_thread")

    # --- on the worker thread ---------------------------------------------------------------------

    def _start(self) -> None:
        clock = self._service.monotonic
        started = clock()
        self.backend.load()
        loaded = clock()
        self._metrics.model = self.backend.identity
        self.backend.warmup(self._progress_of(None), lambda: self._service.stopping is not None)
        self._metrics.count(GenerationKind.WARMUP, GenerationOutcome.OK)
        self._log.info(
            "backend loaded",
            extra={
                "backend": self.backend.name,
                "identity": self.backend.identity,
                "models": ",".join(self.backend.models),
                "load_seconds": round(loaded - started, 3),
                "warmup_seconds": round(clock() - loaded, 3),
            },
        )
        self.run_canary()
        self._free()
        self.lives.started()
        self._admission.started = True

    def _thread_failed(self, error: BaseException) -> None:
        self._service.health.fail("worker_thread", f"ended: {type(error).__name__}")
        missing = isinstance(error, ModelMissing)
        self._service.stop(1, f"{MODEL_MISSING if missing else 'the worker thread ended'}: {error}")

    def _work(self, running: Running) -> None:
        started, beside = self._service.monotonic(), InSwap(self.lives)
        self._upkeep.job_begins()
        gaussians = None
        try:
            generation = self._generate(running)
        except Problem as problem:
            self._jobs.drop()
            running.done.set_exception(problem)
        else:
            gaussians = generation.gaussians
            self._jobs.pass_on(running)
            self._tail.submit(self._finish, running, generation, started, beside)
        finally:
            self._upkeep.job_ended(gaussians)

    def _generate(self, running: Running) -> Generation:
        """Guard, then backend.

        Raises:
            Problem: what to answer; the outcome is counted.
        """
        try:
            reason = self._guard.check()
            if reason is not None:
                raise Problem(Code.MEMORY_REFUSED, f"{reason}; use another worker")
            # A model process decodes by itself.
            job = (
                running.job if self.lives.separate else decoded(running.job, self._settings.max_image_pixels)
            )
            return self.backend.generate(job, self._progress_of(running), running.cancel.is_set)
        except Exception as error:
            raise self._failed(running, error) from error

    def _idle(self) -> None:
        self._beat()
        self.spool.expire()
        if not self._jobs.encoding:
            self._upkeep.idle(self)

    def run_canary(self) -> Canary:
        """On the worker thread, beside no job."""
        running = Running(self.backend.canary(), "", self._service.clock())
        if not self._claim(running):
            return not_run("a job came first")
        self._upkeep.canary_ran()
        started = self._service.monotonic()
        headroom = Headroom(self._service.read_memory)
        try:
            generation = self._generate(running)
            encoded = self._encode(running, generation)
        except Problem as problem:
            self._log.warning("the canary did not run: %s", problem)
            return not_run(problem.detail)
        finally:
            self._jobs.drop()
        headroom.look()
        self._observe(running.job, generation, started)
        self._metrics.count(GenerationKind.CANARY, GenerationOutcome.OK)
        if self._settings.guard == "on":
            headroom.say(self._settings.guard_refuse_ratio)
        verdict = self._judge.canary(self.backend.identity, encoded.quality, encoded.content_digest)
        encoded.discard()
        return verdict.answer()

    def _encode(self, running: Running, generation: Generation) -> Encoded:
        """As :func:`encode`.

        Raises:
            Problem: what came out is unusable; that a canary's is, degrades the worker at once.
        """
        try:
            return encode(generation)
        except UnusableOutput as error:
            self._judge.canary_unusable()
            raise self._failed(running, error) from error

    def _free(self) -> None:
        self.backend.cleanup()
        return_heap()

    # --- on the tail thread -----------------------------------------------------------------------

    def _finish(self, running: Running, generation: Generation, started: float, beside: InSwap) -> None:
        try:
            if running.cancel.is_set():
                raise Cancelled
            running.stage = "encode"
            encoded = encode(generation)
            self._judge.output(encoded.quality)
            stored = keep(self.spool, running, encoded, generation.lane)
        except Exception as error:
            problem = self._failed(running, error)
            self._jobs.encoded(running)
            running.done.set_exception(problem)
            return
        seconds = self._observe(running.job, generation, started)
        if generation.life_id in (None, self.lives.life_id):
            self.recent.add(encoded.quality.gaussians, seconds)
        self._upkeep.tasks_since_canary += 1
        self._metrics.made(generation.lane, encoded.quality.gaussians, seconds, in_swap=beside.now())
        self._metrics.last_generation.set(self._service.clock())
        self._log.info(
            "generated",
            extra={
                "key": running.key,
                "gaussians": encoded.quality.gaussians,
                "seconds": round(seconds, 3),
                "lane": generation.lane,
            },
        )
        self._jobs.encoded(running)
        running.done.set_result(stored)

    # --- on either --------------------------------------------------------------------------------

    def _failed(self, running: Running, error: Exception) -> Problem:
        """Count a failure and do what it asks for; returns the answer."""
        problem, outcome = failure(error)
        self._metrics.count(running.job.kind, outcome)
        if isinstance(error, DeviceError):
            self._judge.device_failed(error.kind)
        elif isinstance(error, UnusableOutput):
            self._judge.suspect()
        elif isinstance(error, GpuOutOfMemory | MemoryError):
            self._free()
        elif isinstance(error, Cancelled):
            self._log.info("cancelled", extra={"key": running.key, "stage": running.stage})
        return problem

    def _claim(self, running: Running) -> bool:
        # An idle hour must not look like a stall of the job's first step.
        return self._jobs.claim(running, lambda: self._metrics.last_progress.set(running.progress_at))

    # --- helpers ----------------------------------------------------------------------------------

    def _observe(self, job: Job, generation: Generation, started: float) -> float:
        seconds = self._service.monotonic() - started
        for stage, value in {**generation.stage_seconds, "total": seconds}.items():
            self._metrics.duration.labels(job.kind.value, stage).observe(value)
        return seconds

    def _progress_of(self, running: Running | None) -> Callable[[str, int, int], None]:
        def progress(stage: str, step: int, steps: int) -> None:
            now = self._service.clock()
            self._beat()
            self._metrics.last_progress.set(now)
            if running is not None:
                running.stage, running.step, running.steps, running.progress_at = stage, step, steps, now

        return progress

    def _wait_for(self, future: Future[Any]) -> Any:
        try:
            return future.result(ADMIN_WAIT_SECONDS)
        except TimeoutError:
            raise Problem(
                Code.BUSY, "the job at work did not end in time", retry_after_seconds=BUSY_RETRY_SECONDS
            ) from None
