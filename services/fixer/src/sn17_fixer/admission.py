"""Concurrency bounded by memory: a splat is taken in only where its work fits into what is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sn17_contract.http import Code
from sn17_service.problems import Problem

#: What a splat of one byte (as 17 floats a gaussian) takes at its peak: itself, one repaired copy, the
#: encoded form and the passing arrays of a step.
PEAK_FACTOR: Final = 4
RETRY_SECONDS: Final = 2.0


class Reservation:
    """What one request holds; grows with its body."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.held = 0

    def at_least(self, size: int) -> None:
        """Hold ``size`` bytes or more. Raises :class:`Problem` ``overloaded`` where they are not left."""
        if size > self.held:
            self._budget._take(size - self.held, size)
            self.held = size


class MemoryBudget:
    """``total`` bytes that requests share; never waits, so that no two requests can block each other."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used

    @contextmanager
    def reservation(self) -> Iterator[Reservation]:
        """An empty reservation, given back at the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            with self._lock:
                self._used -= reservation.held

    def _take(self, more: int, size: int) -> None:
        with self._lock:
            if self._used + more <= self.total:
                self._used += more
                return
        if size > self.total:
            raise Problem(
                Code.TOO_LARGE,
                f"this splat needs {size} bytes of memory to work on; the fixer has {self.total} in all",
            )
        raise Problem(
            Code.OVERLOADED,
            f"no memory is left for this splat ({size} bytes); send it again",
            retry_after_seconds=RETRY_SECONDS,
        )
