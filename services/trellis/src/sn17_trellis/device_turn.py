"""One job or one phase of a start at a time on a device, across processes."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

YIELD_SECONDS: Final = 0.002
"""How long the device is left to whoever waits; a kernel lock has no queue of its own."""


def lock_file(folder: Path, device: str | None, purpose: str = "lock") -> Path:
    """The file whose lock is a device's, by its UUID; None: the only device of this worker."""
    return folder / (f"device.{purpose}" if device is None else f"device-{device}.{purpose}")


class DeviceTurn:
    """A file lock, which the kernel drops when its holder dies. None: no lock.

    ``held_seconds`` and ``waited_seconds`` add up over all turns of this process.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.held_seconds = self.waited_seconds = 0.0
        self._clock = clock
        self._since = 0.0
        self._file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> DeviceTurn:
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def offer(self, after: float = 0.0) -> None:
        """Between two steps: let somebody else go first, once it has been held for ``after`` seconds."""
        if self._file is not None and self._clock() - self._since >= after:
            self._leave()
            time.sleep(YIELD_SECONDS)
            self._take()

    def _take(self) -> None:
        began = self._clock()
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._since = self._clock()
        self.waited_seconds += self._since - began

    def _leave(self) -> None:
        self.held_seconds += self._clock() - self._since
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def try_enter(self) -> bool:
        """Take it only if it is free."""
        if self._file is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Give up the lock and its file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Spent:
    """How long the device was held, and waited for, since this was made."""

    def __init__(self, turn: DeviceTurn) -> None:
        self._turn = turn
        self._held, self._waited = turn.held_seconds, turn.waited_seconds

    @property
    def held(self) -> float:
        return self._turn.held_seconds - self._held

    @property
    def waited(self) -> float:
        return self._turn.waited_seconds - self._waited
