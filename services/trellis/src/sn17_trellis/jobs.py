"""Jobs on their way through the worker: one at work, and assets that are still being encoded."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from sn17_contract.metrics import GenerationKind

from sn17_trellis.backend import Job
from sn17_trellis.spool import StoredResult

MAX_TAILS: Final = 1
"""Assets still being encoded beside which a new job may start."""


@dataclass(slots=True, eq=False)
class Running:
    """Progress is written by the worker thread and read by probes; every field is replaced whole.

    ``done`` carries the stored result or the ``Problem`` to answer with. ``waiters`` belongs to the
    event loop: how many answers still wait for it.
    """

    job: Job
    fingerprint: str
    started_at: float
    key: str | None = None
    done: Future[StoredResult] = field(default_factory=Future)
    cancel: threading.Event = field(default_factory=threading.Event)
    stage: str = "queued"
    step: int = 0
    steps: int = 0
    progress_at: float = 0.0

    def __post_init__(self) -> None:
        self.progress_at = self.started_at


def fingerprint(job: Job, *, seed: int) -> str:
    """Identifies what was asked for; ``seed`` is the one of the request (-1 = any)."""
    content = hashlib.sha256()
    content.update(repr((job.prompt, seed, job.sampling)).encode())
    if job.picture is not None:
        content.update(job.picture)
    if job.image is not None:
        content.update(repr(job.image.shape).encode())
        content.update(job.image.tobytes())
    return content.hexdigest()


class Jobs:
    """Any thread may ask; ``active`` is replaced whole."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tails: list[Running] = []
        self.active: Running | None = None

    @property
    def count(self) -> int:
        with self._lock:
            return len(self._tails) + (self.active is not None)

    @property
    def full(self) -> bool:
        """No new job may start."""
        return self.active is not None or len(self._tails) > MAX_TAILS

    @property
    def encoding(self) -> bool:
        return bool(self._tails)

    def all(self) -> list[Running]:
        with self._lock:
            return [running for running in (self.active, *self._tails) if running is not None]

    def find(self, key: str) -> Running | None:
        return next((running for running in self.all() if running.key == key), None)

    def claim(self, running: Running, before: Callable[[], None]) -> bool:
        """Make it the job at work, unless there is one; ``before`` runs just before anyone can see it."""
        with self._lock:
            if self.active is not None:
                return False
            before()
            self.active = running
            return True

    def drop(self) -> None:
        """The job at work is over."""
        self.active = None

    def pass_on(self, running: Running) -> None:
        """The job at work has become an asset to encode."""
        with self._lock:
            self._tails.append(running)
            self.active = None

    def encoded(self, running: Running) -> None:
        with self._lock:
            self._tails.remove(running)

    def pending(self) -> list[Future[StoredResult]]:
        """The ends of all tasks in flight."""
        return [running.done for running in self.all() if running.job.kind is GenerationKind.TASK]

    def cancel_all(self) -> None:
        for running in self.all():
            running.cancel.set()
