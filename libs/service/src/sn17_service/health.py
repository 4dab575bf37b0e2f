"""Liveness by heartbeats and readiness by named checks."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Health:
    """Named heartbeats, each with the longest silence that still counts as alive. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._beats: dict[str, tuple[float, float]] = {}
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()

    def watch(self, name: str, max_silence_seconds: float) -> Callable[[], None]:
        """Expect ``name`` to beat from now on; call the result for each beat."""
        with self._lock:
            self._beats[name] = (self._monotonic(), max_silence_seconds)

        def beat() -> None:
            with self._lock:
                if name in self._beats:
                    self._beats[name] = (self._monotonic(), max_silence_seconds)

        return beat

    def unwatch(self, name: str) -> None:
        with self._lock:
            self._beats.pop(name, None)

    def fail(self, name: str, reason: str) -> None:
        """Say for good that ``name`` will not beat again."""
        with self._lock:
            self._failed[name] = reason

    def problems(self) -> dict[str, str]:
        """What is not alive, with the reason; empty when all is well."""
        now = self._monotonic()
        with self._lock:
            silent = {
                name: f"no heartbeat for {now - last:.0f} s (allowed: {allowed:g} s)"
                for name, (last, allowed) in self._beats.items()
                if now - last > allowed
            }
            return {**silent, **self._failed}


ReadinessCheck = Callable[[], tuple[bool, str]]


class Readiness:
    """All checks must hold for the service to take work. Checks are cheap and never block."""

    def __init__(self) -> None:
        self._checks: dict[str, ReadinessCheck] = {}

    def add(self, name: str, check: ReadinessCheck) -> None:
        self._checks[name] = check

    def reasons(self) -> dict[str, str]:
        """Failed checks with their reasons; empty when ready."""
        failed = {}
        for name, check in list(self._checks.items()):
            ok, reason = check()
            if not ok:
                failed[name] = reason
        return failed
