"""One miner per state folder: two with one hotkey would take each other's tasks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

NEEDS = "keep the state on a local disk or a block volume (ReadWriteOnce), not on NFS or another file share"
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})

_log = logging.getLogger("sn17.miner")


class LockError(OSError):
    """The file system has no locks."""


def acquire(
    path: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
    flock: Callable[[int, int], None] = fcntl.flock,
) -> int:
    """Lock ``path`` for the life of this process; says so and waits while another miner holds it.

    Returns:
        The file descriptor, which keeps the lock while it is open.

    Raises:
        LockError: the file system has no locks.
        OSError: the folder cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    told = False
    while True:
        try:
            flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                _log.error(
                    "another miner (process %s) works on %s: waiting for it", holder or "?", path.parent
                )
                told = True
            sleep(1.0)
            continue
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            system = filesystem_of(path)
            raise LockError(f"its file system ({system}) offers no locks; {NEEDS}") from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds ``path`` ("ext4", "nfs4"), or "unknown"."""
    try:
        lines = [line.split() for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return "unknown"
    # The kernel writes blanks and backslashes in octal.
    points = {line[1].encode().decode("unicode_escape"): line[2] for line in lines if len(line) > 2}
    inside = [point for point in points if path.resolve().is_relative_to(point)]
    return points[max(inside, key=len)] if inside else "unknown"
