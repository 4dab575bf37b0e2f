"""Failures of the storage in the log: the first at once, and while they go on one line every ten seconds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

LOG_SECONDS: Final = 10.0


class StorageTrouble:
    """May be used from any thread. Every request meets such a failure while a database is away."""

    def __init__(self, log: logging.Logger, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._logged_at: float | None = None
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Log it with the number of failures since the last line, unless that is younger than ten seconds."""
        with self._lock:
            self._failures += 1
            now = self._monotonic()
            if self._logged_at is not None and now - self._logged_at < LOG_SECONDS:
                return
            failures, self._failures, self._logged_at = self._failures, 0, now
        self._log.error("storage failed: %s", error, extra={"failures": failures})
