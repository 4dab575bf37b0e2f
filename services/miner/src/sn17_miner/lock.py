"""One miner per state folder: two with one hotkey would take each other's tasks."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger("sn17.miner")


def acquire(path: Path, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """Lock ``path`` for the life of this process; says so and waits while another miner holds it.

    Returns the file descriptor, which keeps the lock while it is open.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                _log.error(
                    "another miner (process %s) works on %s: waiting for it", holder or "?", path.parent
                )
                told = True
            sleep(1.0)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor
