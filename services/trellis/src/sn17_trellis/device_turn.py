"""One job or one phase of a start at a time on a device, across processes."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final

YIELD_SECONDS: Final = 0.002
"""How long the device is left to whoever waits; a kernel lock has no queue of its own."""


class DeviceTurn:
    """A file lock, which the kernel drops when its holder dies. None: no lock."""

    def __init__(self, path: Path | None) -> None:
        self._file: int | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> DeviceTurn:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def offer(self) -> None:
        """Between two steps: let somebody else go first."""
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            time.sleep(YIELD_SECONDS)
            fcntl.flock(self._file, fcntl.LOCK_EX)

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
