"""Whether one generation still fits above the mark at which the guard refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sn17_service import MemoryReading

log = logging.getLogger("sn17.trellis.guard")


class Peak:
    """The growth of unreclaimable memory over a generation, by looking at each step."""

    def __init__(self, read: Callable[[], MemoryReading | None]) -> None:
        self._read = read
        reading = read()
        self._before = reading.unreclaimable if reading else 0
        self._growth = 0

    def look(self) -> None:
        reading = self._read()
        if reading is not None:
            self._growth = max(self._growth, reading.unreclaimable - self._before)

    def say(self, refuse_ratio: float) -> None:
        """Log the highest ratio that a generation allowed by the guard can reach."""
        reading = self._read()
        if reading is None or reading.limit is None:
            return
        worst = refuse_ratio + self._growth / reading.limit
        extra = {"growth_bytes": self._growth, "limit_bytes": reading.limit, "worst_ratio": round(worst, 3)}
        if worst >= 1:
            log.warning("a generation can pass the memory limit from below the refusing mark", extra=extra)
        else:
            log.info("a generation fits above the refusing mark", extra=extra)
