"""Payload files: written beside, synced, then renamed, so that a name always means a whole file."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from sn17_files import publish

_PART: Final = ".part"


class SpoolError(OSError):
    """A payload is missing or does not fit."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota that is used up, is what an error comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


@dataclass(slots=True)
class Spool:
    """A folder of payloads, bounded by ``max_bytes`` and by what the disk must keep free."""

    folder: Path
    max_bytes: int
    min_free_bytes: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def create(self, name: str) -> IO[bytes]:
        """An open file that becomes ``name`` with ``commit``."""
        return (self.folder / (name + _PART)).open("wb")

    def commit(self, name: str, file: IO[bytes]) -> Path:
        """Make what was written durable under its name. Blocks on the disk."""
        target = self.path(name)
        publish(file, self.folder / (name + _PART), target)
        return target

    def discard(self, name: str, file: IO[bytes]) -> None:
        """Throw a half-written file away."""
        file.close()
        (self.folder / (name + _PART)).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Where ``name`` lies."""
        return self.folder / name

    def read(self, name: str) -> bytes:
        """A whole payload. Raises SpoolError when it is gone."""
        return self.existing(name).read_bytes()

    def existing(self, name: str) -> Path:
        """Where a payload lies. Raises SpoolError when it is gone."""
        path = self.path(name)
        if not path.is_file():
            raise SpoolError(f"payload {name} is gone from the spool")
        return path

    def remove(self, *names: str | None) -> None:
        """Payloads that are no longer needed."""
        for name in names:
            if name is not None:
                self.path(name).unlink(missing_ok=True)

    def sweep(self, needed: Collection[str]) -> int:
        """Remove everything the journal does not know, as after a crash; how many files."""
        strangers = [path for path in self.folder.iterdir() if path.is_file() and path.name not in needed]
        for path in strangers:
            path.unlink(missing_ok=True)
        return len(strangers)

    def used(self) -> int:
        """Bytes of all payloads."""
        return sum(entry.stat().st_size for entry in os.scandir(self.folder) if entry.is_file())

    def full(self) -> str | None:
        """Why no further task should be taken on, or None."""
        used = self.used()
        if used >= self.max_bytes:
            return f"the spool holds {used >> 20} MiB of at most {self.max_bytes >> 20} MiB"
        free = shutil.disk_usage(self.folder).free
        if free < self.min_free_bytes:
            return f"the disk has {free >> 20} MiB left, {self.min_free_bytes >> 20} MiB must stay free"
        return None
