"""Measures what a swap needs, on the worker itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from sn17_service import MemoryReading

from sn17_trellis.model_process.life import Life
from sn17_trellis.model_process.memory import process_bytes
from sn17_trellis.model_process.processes import Fresh
from sn17_trellis.model_process.room import Measures, Terms, job_must_wait, no_room, not_worth_it

DEVICE_CONTEXT: Final = 1 << 30
"""Bytes that a process takes of a device beside its tensors: 0.75 GiB on an H200, by two runs of swaps."""


class Meter:
    """``read_memory`` is of the whole container, ``job_seconds`` the median of recent jobs.

    ``why_exclusive`` says why a device, by UUID, takes no second process; None where it does. ``own_bytes``
    is what this process, the service, holds.
    """

    def __init__(
        self,
        *,
        read_memory: Callable[[], MemoryReading | None],
        job_seconds: Callable[[], float | None],
        refuse_ratio: float,
        why_exclusive: Callable[[str | None], str | None] = lambda _: None,
        own_bytes: Callable[[], int | None] = lambda: process_bytes(os.getpid()),
    ) -> None:
        self.measures = Measures()
        self._read_memory = read_memory
        self.job_seconds = job_seconds
        self._refuse_ratio = refuse_ratio
        self._why_exclusive = why_exclusive
        self._own_bytes = own_bytes

    def used(self) -> int | None:
        """Bytes of the container that cannot be reclaimed."""
        reading = self._read_memory()
        return None if reading is None else reading.unreclaimable

    def terms(self, serving: Life | None) -> Terms | None:
        """The terms of the room for a swap; None while one is unknown."""
        return self._terms_at(self._read_memory(), serving)

    def _terms_at(self, reading: MemoryReading | None, serving: Life | None) -> Terms | None:
        return self.measures.terms(
            limit=None if reading is None else reading.limit,
            refuse_ratio=self._refuse_ratio,
            job_seconds=self.job_seconds(),
            device_free=None if serving is None else serving.gpu_memory.get("free"),
        )

    def room(self, serving: Life | None) -> bool | None:
        """Whether a swap fits now and is worth it; None where that is not known."""
        if self._exclusive(serving) is not None:
            return False
        reading = self._read_memory()
        terms = self._terms_at(reading, serving)
        return (
            None if terms is None or reading is None else not_worth_it(terms, reading.unreclaimable) is None
        )

    def why_no_room(self, serving: Life | None) -> str | None:
        """Why a swap does not fit; None where it does, or where no limit stands in its way."""
        exclusive = self._exclusive(serving)
        if exclusive is not None:
            return exclusive
        reading = self._read_memory()
        if reading is None:
            return "the worker's memory is unknown"
        if reading.limit is None:
            return None
        terms = self._terms_at(reading, serving)
        if terms is None:
            return "what a fresh process needs has not been measured yet"
        return no_room(terms, reading.unreclaimable)

    def _exclusive(self, serving: Life | None) -> str | None:
        loaded = None if serving is None else serving.loaded
        return None if loaded is None else self._why_exclusive(loaded.device)

    def after_job(self, gaussians: int | None, idle_for: float | None, *, alone: bool) -> None:
        """As :meth:`Lives.after_job`. Growth is of one model process ``alone``."""
        if idle_for is not None:
            self.measures.had_no_work(idle_for)
        reading = self._read_memory()
        if reading is None:
            return
        if gaussians is not None and reading.limit is not None:
            self.measures.made(gaussians, reading.unreclaimable, int(self._refuse_ratio * reading.limit))
        if alone:
            self.measures.after_job(reading.unreclaimable, self._own_bytes())

    def must_wait(self, serving: Life | None, fresh: Life | None) -> bool:
        """Whether the old process gets no job for now, since it would take what the fresh one still needs."""
        reading = self._read_memory()
        terms = self._terms_at(reading, serving)
        if terms is None or reading is None or fresh is None:
            return False
        return job_must_wait(terms, reading.unreclaimable, process_bytes(fresh.handle.pid) or 0)

    def measured(self, fresh: Fresh) -> None:
        """A fresh process serves alone: the next one will need what it needed."""
        if fresh.canary is not None:
            self.measures.canary_seconds = fresh.canary_seconds
        self.measures.held(warm_up=fresh.warm_up_held, canary=fresh.canary_held)
        self.started(fresh.life)

    def started(self, life: Life) -> None:
        """A fresh life serves alone: its start tells what the next one will need."""
        life.sample(process_bytes(life.handle.pid))
        self.measures.started(life.peak, time.monotonic() - life.began)
        need = life.gpu_memory.get("reserved")
        if need is not None:
            self.measures.device_need = max(need + DEVICE_CONTEXT, self.measures.device_need or 0)
        used = self.used()
        if used is not None:
            self.measures.at_rest(used, self._own_bytes())
