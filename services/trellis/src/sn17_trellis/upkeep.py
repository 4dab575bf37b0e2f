"""What a worker does of its own accord between jobs: canaries, clean-ups, swaps, its own end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from sn17_contract.kubernetes import EXIT_CODE_RECYCLE
from sn17_contract.worker import BY_GUARD, RecycleHow
from sn17_service import Problem, Service

from sn17_trellis.degradation import Degradation
from sn17_trellis.guard import Guard, SelfRecycle
from sn17_trellis.left_alone import LeftAlone
from sn17_trellis.model_process.lives import Lives
from sn17_trellis.model_process.room import FREED_LEAST, too_small
from sn17_trellis.settings import WorkerSettings
from sn17_trellis.swap_policy import SwapPolicy

CANARY_RETRY_SECONDS: Final = 60.0

log = logging.getLogger("sn17.trellis.upkeep")


class Acts(Protocol):
    """What the worker lends for it."""

    def run_canary(self) -> object: ...

    def refusal(self) -> Problem | None: ...


class Upkeep:
    """Called on the worker thread."""

    def __init__(
        self,
        service: Service,
        settings: WorkerSettings,
        guard: Guard,
        degradation: Degradation,
        lives: Lives,
        recycles: SelfRecycle,
        *,
        random: Callable[[], float],
    ) -> None:
        self._service = service
        self._settings = settings
        self._guard = guard
        self._degradation = degradation
        self._lives = lives
        self._recycles = recycles
        self._renewed = False
        self._ran_since_cleanup = False
        self._free_since: str | None = None
        """The life that has been able to take a job since the last one ended; None if somebody held it."""
        self._idle_before: float | None = None
        self._last_job_end = service.monotonic()
        self.tasks_since_canary = 0
        self.last_canary = 0.0
        self.left_alone = LeftAlone(
            lambda: _token(settings.admin_token_file), clock=service.clock, monotonic=service.monotonic
        )
        self.policy = SwapPolicy(
            after_seconds=settings.guard_swap_after_seconds,
            idle_seconds=settings.idle_swap_after_seconds,
            random=random,
        )

    def job_begins(self) -> None:
        """Before each generation."""
        # A job that has to wait for a swap asks more than once; what counts is when it came.
        if self._idle_before is None and self._free_since == self._lives.life_id:
            self._idle_before = self._service.monotonic() - self._last_job_end
        self._swap_if_due(idle_for=0.0, job_next=True)

    def job_ended(self, gaussians: int | None) -> None:
        """After each generation; the size of its asset if there is one."""
        self._last_job_end = self._service.monotonic()
        self._ran_since_cleanup = True
        self._lives.after_job(gaussians, self._idle_before)
        self._free_since, self._idle_before = self._lives.life_id, None
        self._swap_if_due(idle_for=0.0)
        self._replace_if_faded()
        if not self._renew_if_useless():
            self._renewed = False
        if gaussians is not None and not self._degradation.fatal and self._full() is None:
            self._recycles.helped()

    def idle(self, acts: Acts) -> None:
        """At every quiet tick without an asset being encoded."""
        if self._service.drain.draining:
            self._free_since = None
        if self._canary_due() and acts.refusal() is None:
            acts.run_canary()
            return
        self._guard.check(clean=self._ran_since_cleanup)
        self._ran_since_cleanup = False
        self._swap_if_due(idle_for=self._service.monotonic() - self._last_job_end)
        if not self._renew_if_useless():
            self._give_up_if_due()

    def canary_ran(self) -> None:
        """A canary was begun."""
        self.tasks_since_canary = 0
        self.last_canary = self._service.monotonic()

    def _canary_holds(self) -> bool:
        """Whether the next life can do without: a canary that passed lately, nothing suspect since.

        A life that leaks away within minutes would spend a good part of them on proving itself.
        """
        return self._degradation.trusted and self.tasks_since_canary < self._settings.canary_every

    def _canary_due(self) -> bool:
        """Every so many tasks, and again and again while degraded: a pass ends the degradation."""
        every = self._settings.canary_every
        if every and self.tasks_since_canary >= every:
            return True
        seconds = self._service.monotonic() - self.last_canary
        return self._degradation.degraded is not None and seconds >= CANARY_RETRY_SECONDS

    def _swap_if_due(self, *, idle_for: float, job_next: bool = False) -> None:
        lives = self._lives
        if self._settings.guard == "off" or lives.recycling is not None or self._service.stopping is not None:
            return
        reading = self._service.read_memory()
        if reading is None:
            return
        now = self._service.monotonic()
        reason = self.policy.due(
            lives.terms(),
            reading.unreclaimable,
            now=now,
            idle_for=idle_for,
            alone_for=self.left_alone.seconds(),
            job_next=job_next,
        )
        if reason is not None:
            self._recycle(RecycleHow.SWAP, reason)

    def _replace_if_faded(self) -> None:
        lives, reading = self._lives, self._service.read_memory()
        if self._settings.guard == "off" or lives.recycling is not None or self._service.stopping is not None:
            return
        terms = None if reading is None or self._service.drain.draining else lives.terms()
        why = None if reading is None or terms is None else too_small(terms, reading.unreclaimable)
        if why is not None:
            self._recycle(RecycleHow.REPLACE, f"{BY_GUARD}{why}")

    def _renew_if_useless(self) -> bool:
        """Whether no job can be taken; then a new model process at once, or a new container where that did
        not help or cannot.

        A worker that refuses everything loses nothing by either. While somebody holds it, what happens is
        their affair. A job that comes to its end below the refusing level shows that the last act helped.
        """
        lives, held = self._lives, self._service.drain.draining
        if not lives.separate or held or lives.recycling is not None or self._service.stopping is not None:
            return False
        dead = self._degradation.fatal
        why = "a fatal device error" if dead else self._full()
        if why is None:
            return False
        useless = self._renewed or (not dead and self._service_holds())
        if useless and self._recycles.due(math.inf, refusing=True, leaks=not dead and self._service_leaks()):
            self._service.stop(EXIT_CODE_RECYCLE, "self_recycle")
        elif not self._renewed:
            self._renewed = self._recycle(RecycleHow.REPLACE, f"{BY_GUARD}{why}")
        return True

    def _service_holds(self) -> bool:
        """Whether what fills the memory outlived the last model process."""
        terms = self._lives.terms()
        return terms is not None and terms.freed < FREED_LEAST

    def _service_leaks(self) -> bool:
        """Whether it is the service's own process, and not a volume in memory, that fills the memory."""
        terms = self._lives.terms()
        return terms is not None and terms.service_share > 1.0 - FREED_LEAST

    def _full(self) -> str | None:
        """Why the guard would refuse the next job."""
        reading = self._service.read_memory()
        if self._settings.guard == "off" or reading is None or reading.ratio is None:
            return None
        return self._guard.check() if reading.ratio >= self._settings.guard_refuse_ratio else None

    def _give_up_if_due(self) -> None:
        """Refusing, alone with it for long: end."""
        since = self._guard.refusing_since
        last = max(since or 0.0, self._last_job_end, self._service.last_admin_call or 0.0)
        alone = self._service.monotonic() - last
        if self._recycles.due(alone, refusing=since is not None or self._degradation.fatal):
            self._service.stop(EXIT_CODE_RECYCLE, "self_recycle")

    def _recycle(self, how: RecycleHow, reason: str) -> bool:
        try:
            life_id = self._lives.life_id
            self._lives.recycle(life_id, how, reason, verify=False, canary=not self._canary_holds())
        except Problem as problem:
            log.info("no %s: %s", how.value, problem.detail)
            return False
        return True


def _token(file: Path | None) -> str | None:
    try:
        return None if file is None else file.read_text().strip()
    except OSError as error:
        log.warning("the admin token cannot be read: %s", error.strerror)
        return None
