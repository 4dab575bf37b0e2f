"""Submitted assets, kept for people to look at: the newest, within a number and a size."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = "submitted"
"""Below the state folder."""
_NAME: Final = re.compile(r"\d+-[0-9a-f]{16}\.spz")
_log = logging.getLogger("sn17.miner.kept")


@dataclass(frozen=True, slots=True)
class KeptAssets:
    """SPZ files named by task. None of them is needed by the miner: what takes too much room goes."""

    folder: Path
    count: int = 0
    max_bytes: int = 0
    min_free_bytes: int = 0

    def path(self, n: int, task_id: str) -> Path:
        """Where the asset of a task lies, if it is kept. A journal that began anew counts from 1 again, so
        the validator's id is part of the name.
        """
        return self.folder / f"{n}-{hashlib.sha256(task_id.encode()).hexdigest()[:16]}.spz"

    def keep(self, n: int, task_id: str, spz: Path) -> None:
        """Take the file ``spz`` over and drop the oldest beyond the limits. A disk that refuses is logged."""
        if not self.count:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The newest of all, whatever the clock says: it may have been set back.
            newest = max((path.stat().st_mtime_ns for path in self._files()), default=0)
            spz.replace(self.path(n, task_id))
            moment = max(time.time_ns(), newest + 1)
            os.utime(self.path(n, task_id), ns=(moment, moment))
            self._prune()
        except OSError as error:
            _log.warning("a submitted asset is not kept: %s", error.strerror, extra={"task": n})

    def prune(self) -> None:
        """Drop what the limits no longer allow, as when others have filled the disk since."""
        try:
            self._prune()
        except OSError as error:
            _log.warning("submitted assets are not pruned: %s", error.strerror)

    def clear(self) -> int:
        """Drop all of them, since the work needs their room; how many there were. What cannot be dropped is
        logged: the task that needs the room goes on being tried.
        """
        dropped = 0
        try:
            for path in self._files():
                path.unlink(missing_ok=True)
                dropped += 1
        except OSError as error:
            _log.warning("submitted assets are not dropped: %s", error.strerror)
        return dropped

    def _files(self) -> list[Path]:
        if not self.count or not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]

    def _prune(self) -> None:
        files = self._files()
        if not files:
            return
        newest_first = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        sizes = [path.stat().st_size for path in newest_first]
        short = self.min_free_bytes - shutil.disk_usage(self.folder).free
        room = min(self.max_bytes, sum(sizes) - short)
        for place, path in enumerate(newest_first):
            if place >= self.count or sum(sizes[: place + 1]) > room:
                path.unlink(missing_ok=True)
