"""Which workers there are, what they say of themselves, and who holds them. No I/O; seconds are monotonic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sn17_contract.http import WorkerState
from sn17_contract.worker import WorkerStatus

STARTS_WITHIN: Final = 300.0
"""Seconds for which a worker that has never answered counts as one that is being started."""


@dataclass(slots=True)
class Worker:
    """One worker, known by its address. ``models``: what it did when it last said so; a worker that loads
    them names none.
    """

    url: str
    found_at: float = -math.inf
    status: WorkerStatus | None = None
    models: tuple[str, ...] = ()
    seen_at: float | None = None
    free_since: float | None = None
    rest_until: float = 0.0
    rest_reason: str = ""
    held_by: str | None = None
    last_error: str | None = "not asked yet"
    moved_at: float = 0.0
    moved: tuple[Any, ...] = field(default=())

    @property
    def name(self) -> str:
        """What it calls itself, or its address."""
        return self.status.worker if self.status else self.url


@dataclass(slots=True)
class Fleet:
    """``stale_after`` seconds without news a worker counts as unreachable."""

    stale_after: float
    workers: dict[str, Worker] = field(default_factory=dict)

    def discovered(self, urls: Iterable[str], now: float, *, forget: bool) -> tuple[list[str], list[str]]:
        """Take over a list of addresses; (new ones, dropped ones). One in use stays until it is released."""
        wanted = dict.fromkeys(urls)
        new = [url for url in wanted if url not in self.workers]
        for url in new:
            self.workers[url] = Worker(url, now)
        gone = [url for url, w in self.workers.items() if url not in wanted and w.held_by is None]
        if not forget:
            return new, []
        for url in gone:
            del self.workers[url]
        return new, gone

    def observe(self, url: str, status: WorkerStatus, now: float) -> None:
        """It answered."""
        worker = self.workers.get(url)
        if worker is None:
            return
        moved = (status.boot_id, status.life_id, status.job)
        if moved != worker.moved:
            worker.moved, worker.moved_at = moved, now
        worker.status, worker.seen_at, worker.last_error = status, now, None
        worker.models = status.models or worker.models
        self._refresh(worker, now)

    def unreachable(self, url: str, reason: str, now: float) -> None:
        """It did not."""
        worker = self.workers.get(url)
        if worker is not None:
            worker.last_error = reason
            self._refresh(worker, now)

    def refused(self, url: str, state: WorkerState, now: float) -> None:
        """A refusal told its state before the next look at it does."""
        worker = self.workers.get(url)
        if worker is not None and worker.status is not None:
            worker.status = worker.status.model_copy(update={"state": state})
            self._refresh(worker, now)

    def rest(self, url: str, seconds: float, reason: str, now: float) -> None:
        """Leave it alone for a while."""
        worker = self.workers.get(url)
        if worker is not None:
            worker.rest_until, worker.rest_reason = now + seconds, reason
            self._refresh(worker, now)

    def hold(self, url: str, holder: str, now: float) -> Worker:
        """Reserve it. Raises ValueError when someone else has it."""
        worker = self.workers[url]
        if worker.held_by not in (None, holder):
            raise ValueError(f"{url} is held by {worker.held_by}")
        worker.held_by = holder
        self._refresh(worker, now)
        return worker

    def release(self, url: str, now: float) -> None:
        """Give it back; it is free when it says so."""
        worker = self.workers.get(url)
        if worker is not None:
            worker.held_by = None
            self._refresh(worker, now)

    def free(self, now: float, *, kind: str | None = None) -> list[Worker]:
        """Free and healthy ones that do ``kind``: the most versatile, then the least memory first."""
        for worker in self.workers.values():
            self._refresh(worker, now)
        usable = [w for w in self.workers.values() if w.free_since is not None]
        if kind is not None:
            usable = [w for w in usable if w.status and kind in w.status.models]
        return sorted(usable, key=_preference)

    def serves(self, kind: str, now: float) -> bool:
        """Whether any worker does ``kind``, busy or out of reach. True also while one that is being started
        has not said what it does, and while none is known.
        """
        workers = self.workers.values()
        return not workers or any(kind in w.models if w.models else self._may_start(w, now) for w in workers)

    def _may_start(self, worker: Worker, now: float) -> bool:
        return worker.last_error is None or now - worker.found_at <= STARTS_WITHIN

    def usable(self, now: float) -> int:
        """Workers that take work now or after their present job."""
        good = (WorkerState.READY, WorkerState.BUSY)
        return sum(
            1 for w in self.workers.values() if self._fresh(w, now) and w.status and w.status.state in good
        )

    def why_not(self, worker: Worker, now: float) -> str | None:
        """Why it is not free; None when it is."""
        if worker.held_by is not None:
            return f"held for {worker.held_by}"
        if not self._fresh(worker, now) or worker.status is None:
            return worker.last_error or "no news from it"
        if now < worker.rest_until:
            return worker.rest_reason
        if worker.status.state is not WorkerState.READY:
            return worker.status.state.value
        if worker.status.job is not None:
            return "busy"
        return None

    def _fresh(self, worker: Worker, now: float) -> bool:
        recent = worker.seen_at is not None and now - worker.seen_at <= self.stale_after
        return recent and worker.last_error is None

    def _refresh(self, worker: Worker, now: float) -> None:
        if self.why_not(worker, now) is not None:
            worker.free_since = None
        elif worker.free_since is None:
            worker.free_since = now


def _preference(worker: Worker) -> tuple[int, float, str]:
    status = worker.status
    memory = status.memory.unreclaimable_bytes if status and status.memory else math.inf
    return (-len(status.models) if status else 0, memory, worker.url)
