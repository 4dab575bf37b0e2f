"""The one way in which this project replaces a file."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import IO


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace the content of ``path``: readers see the old or the new, never a part, also after a power cut.

    Written beside, synced, renamed; then the folder is synced. A file that was there keeps its permissions
    unless ``mode`` gives others; behind a symbolic link the file that it names is replaced. What is no
    regular file (a pipe, a terminal, ``/dev/null``) is written to, not replaced. Blocks on the disk.

    Raises:
        OSError: nothing was changed, and nothing is left beside.
    """
    try:
        there = path.stat().st_mode
    except FileNotFoundError:
        there = None
    if there is not None and not stat.S_ISREG(there):
        path.write_bytes(content)
        return
    target = path.resolve()
    if mode is None and there is not None:
        mode = stat.S_IMODE(there)
    part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(6)}")
    try:
        _write(part, target, content, mode)
    except OSError as error:
        # The name that the caller gave, not the one beside it.
        error.filename = str(path)
        # None would be shown: "-> None".
        del error.filename2
        raise


def _write(part: Path, target: Path, content: bytes, mode: int | None) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            publish(file, part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def publish(file: IO[bytes], part: Path, target: Path) -> None:
    """Close ``file``, which was written as ``part``, and give it its name ``target`` for good.

    Both names are in one folder. Blocks on the disk.

    Raises:
        OSError: the disk is full or broken. ``part`` may still be there.
    """
    file.flush()
    os.fsync(file.fileno())
    file.close()
    part.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
