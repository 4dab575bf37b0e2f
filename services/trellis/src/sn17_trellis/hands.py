"""The jobs a worker has in its hands: one at work, and assets that are still being encoded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from sn17_contract.metrics import GenerationKind

from sn17_trellis.jobs import Running
from sn17_trellis.spool import StoredResult

MAX_TAILS: Final = 1
"""Assets still being encoded beside which a new job may start."""


class Hands:
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
