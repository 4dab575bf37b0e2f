"""The folder of one run: made, and kept to one process."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK = "sn17-up.lock"


class FolderError(OSError):
    """The folder cannot be used; the message names it and says what to do."""


def choose(given: Path | None, now: dt.datetime) -> Path:
    """The folder that the user named, or a new one below ``.sn17`` that no other run has.

    Raises:
        FolderError: it cannot be made.
    """
    try:
        if given is not None:
            given.mkdir(parents=True, exist_ok=True)
            return given
        parent = Path(".sn17")
        parent.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{now:%Y%m%d-%H%M%S}-", dir=parent))
    except OSError as error:
        name = given or Path.cwd() / ".sn17"
        raise FolderError(f"{name}: {error.strerror}; name another folder with --state-dir") from error


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process.

    Raises:
        FolderError: another run has it, or it cannot be written to.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderError(f"{folder}: {error.strerror}; name another folder with --state-dir") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "?"
            raise FolderError(
                f"{folder}: another sn17 up (process {holder}) uses it; name another folder with --state-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)
