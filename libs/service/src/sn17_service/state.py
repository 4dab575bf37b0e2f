"""What a service is at a moment: identity, leases, health, memory, and whether it is on its way out."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from sn17_contract.admin import Canary
from sn17_contract.http import LeaseOwner

from sn17_service.drain import DrainLease, Lease
from sn17_service.health import Health, Readiness
from sn17_service.memory import MemoryReader, MemoryReading, MemoryUnavailable, memory_reader
from sn17_service.process import write_termination_reason
from sn17_service.settings import ServiceSettings


class ServiceState:
    """Read by the metrics and the ops port; safe from any thread."""

    def __init__(
        self,
        name: str,
        version: str,
        settings: ServiceSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        memory: MemoryReader | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.settings = settings
        self.clock = clock
        self.monotonic = monotonic
        self.boot_id = secrets.token_hex(8)
        self.log = logging.getLogger(f"sn17.{name}")
        self.drain = DrainLease(monotonic)
        self.health = Health(monotonic)
        self.readiness = Readiness()
        self.memory: MemoryReader = memory or memory_reader(
            settings.memory_source, settings.memory_limit_bytes
        )
        self.scrape_lock = threading.Lock()
        """Held while metrics are written: what must change together changes under it."""
        self.memory_thresholds: dict[str, float] = {}
        self.cleanup_calls: list[Callable[[], object]] = []
        self.canary_call: Callable[[], Canary] | None = None
        self.life_id: Callable[[], str | None] = lambda: None
        self.jobs_in_flight: Callable[[], int | None] = lambda: None
        self.exit_calls: list[Callable[[str], None]] = []
        self.last_admin_call: float | None = None
        self._memory_failed = False
        self._stop_lock = threading.Lock()
        self._stop: tuple[int, str] | None = None
        self._stop_asked: Callable[[], None] = lambda: None
        self.readiness.add("draining", self._not_draining)

    # --- what a service registers -----------------------------------------------------------------

    def on_cleanup(self, call: Callable[[], object]) -> None:
        """``POST /admin/v1/cleanup`` runs it on a thread; then heap goes back to the kernel."""
        self.cleanup_calls.append(call)

    def on_canary(self, call: Callable[[], Canary]) -> None:
        """``POST /admin/v1/canary`` runs it on a thread and answers with what it returns."""
        self.canary_call = call

    def on_exit(self, call: Callable[[str], None]) -> None:
        """``POST /admin/v1/exit`` calls it with the reason before the process stops."""
        self.exit_calls.append(call)

    # --- memory -----------------------------------------------------------------------------------

    def read_memory(self) -> MemoryReading | None:
        """The reading, or None where the kernel does not tell: unknown is not zero, and not full."""
        try:
            reading = self.memory.read()
        except MemoryUnavailable as error:
            if not self._memory_failed:
                self.log.warning("memory is unknown: %s", error)
            self._memory_failed = True
            return None
        self._memory_failed = False
        return reading

    # --- leases and the end -----------------------------------------------------------------------

    def seconds_left(self, lease: Lease) -> float | None:
        """Seconds until the lease expires; None for one without a term."""
        return None if lease.expires is None else max(0.0, lease.expires - self.monotonic())

    def admin_called(self) -> None:
        """Note that somebody used an admin route now."""
        self.last_admin_call = self.monotonic()

    @property
    def stopping(self) -> str | None:
        """The reason, once the process is on its way out."""
        return self._stop[1] if self._stop else None

    @property
    def exit_code(self) -> int:
        """Of the process: what :meth:`stop` was given, 1 before it was called."""
        return self._stop[0] if self._stop else 1

    def stop(self, exit_code: int, reason: str) -> None:
        """Drain, finish what runs, exit. From any thread; the first call decides code and reason."""
        with self._stop_lock:
            if self._stop is not None:
                return
            self._stop = (exit_code, reason)
        self.drain.hold(LeaseOwner.SHUTDOWN, reason)
        self.log.info("stopping", extra={"reason": reason, "exit_code": exit_code})
        write_termination_reason(self.settings.termination_log, reason)
        self._stop_asked()

    def _not_draining(self) -> tuple[bool, str]:
        lease = self.drain.current
        return lease is None, f"{lease.by.value}: {lease.reason}" if lease else ""
