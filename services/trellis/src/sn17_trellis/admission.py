"""Whether the worker takes a job now, and the word for how it is."""

from __future__ import annotations

from typing import Final

from sn17_contract.http import Code, WorkerState
from sn17_service import Problem, Service

from sn17_trellis.degradation import Degradation
from sn17_trellis.guard import Guard
from sn17_trellis.jobs import Jobs
from sn17_trellis.metrics import RecentTasks
from sn17_trellis.model_process.lives import Lives

BUSY_RETRY_SECONDS: Final = 5.0


class Admission:
    """Judged anew at every question, from what others know; ``started`` is set once it may serve at all."""

    def __init__(
        self,
        service: Service,
        guard: Guard,
        degradation: Degradation,
        jobs: Jobs,
        recent: RecentTasks,
        lives: Lives,
    ) -> None:
        self._service = service
        self._guard = guard
        self._degradation = degradation
        self._jobs = jobs
        self._recent = recent
        self._lives = lives
        self.started = False

    @property
    def state(self) -> WorkerState:
        """The most telling word; a busy worker that is also degraded says degraded (and shows its job)."""
        refusal = self.refusal()
        if refusal is not None and refusal.code is not Code.BUSY:
            return {
                Code.WARMING_UP: WorkerState.WARMING,
                Code.DRAINING: WorkerState.DRAINING,
                Code.MEMORY_REFUSED: WorkerState.REFUSING,
            }.get(refusal.code, WorkerState.DEGRADED)
        if self._degradation.degraded is not None:
            return WorkerState.DEGRADED
        return WorkerState.READY if refusal is None else WorkerState.BUSY

    def refusal(self) -> Problem | None:
        """Why a new job would be refused now; being busy comes last."""
        lease = self._service.drain.current
        if lease is not None:
            return Problem(Code.DRAINING, f"drained by {lease.by.value}: {lease.reason}; use another worker")
        if not self.started:
            return Problem(Code.WARMING_UP, "the models are being loaded", retry_after_seconds=10)
        if self._lives.failing is not None:
            return Problem(Code.DEGRADED, f"{self._lives.failing}; use another worker")
        if not self._lives.ready:
            return Problem(Code.WARMING_UP, "the model process is starting anew", retry_after_seconds=10)
        if self._degradation.fatal and self._degradation.degraded is not None:
            return Problem(Code.DEGRADED, f"{self._degradation.degraded.reason}; use another worker")
        if self._guard.refusing_since is not None:
            return Problem(Code.MEMORY_REFUSED, "memory is nearly full; use another worker")
        if self._jobs.full:
            return self.busy("one job at a time; try again or use another worker")
        if self._lives.must_wait:
            return self.busy("memory is short until a fresh model process serves; use another worker")
        return None

    def not_ready(self) -> tuple[bool, str]:
        """Readiness check: false while warming or refusing, never for busy (drain has its own)."""
        refusal = self.refusal()
        if refusal is None or refusal.code in (Code.BUSY, Code.DRAINING):
            return True, ""
        return False, refusal.detail

    def busy(self, detail: str) -> Problem:
        """With a guess at when the worker is free."""
        active, typical = self._jobs.active, self._recent.read().seconds_p50
        wait = BUSY_RETRY_SECONDS
        if active is not None and typical is not None:
            wait = max(1.0, typical - (self._service.clock() - active.started_at))
        return Problem(Code.BUSY, detail, retry_after_seconds=wait)
