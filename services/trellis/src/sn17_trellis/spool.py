"""Finished assets on disk: kept for the key that asked, gone when sent or too old."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from sn17_files import write_atomically

log = logging.getLogger("sn17.trellis.spool")


@dataclass(frozen=True, slots=True)
class StoredResult:
    """An encoded asset. ``fingerprint`` identifies the request, ``stored_at`` is wall-clock seconds."""

    path: Path
    key: str | None
    fingerprint: str
    seed: int
    gaussians: int
    stored_at: float
    size: int
    lane: str = "exact"

    def discard(self) -> None:
        """Remove the file of a result without a key; an open reader keeps reading."""
        if self.key is None:
            self.path.unlink(missing_ok=True)


class Spool:
    """A folder of ``.ply`` files, keyed ones each with a ``.json`` beside it.

    Keyed results survive a restart of the process. Thread-safe.
    """

    def __init__(self, folder: Path, *, ttl_seconds: float, keep: int, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._ttl = ttl_seconds
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._results: dict[str, StoredResult] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._load()

    def store(
        self,
        ply: bytes | Path,
        *,
        key: str | None,
        fingerprint: str,
        seed: int,
        gaussians: int,
        lane: str = "exact",
    ) -> StoredResult:
        """Write an asset, or move the file with its bytes here.

        Raises:
            OSError: the disk is full or not writable; nothing is left behind.
        """
        name = hashlib.sha256(key.encode()).hexdigest()[:32] if key else f"once-{secrets.token_hex(8)}"
        path = self._folder / f"{name}.ply"
        try:
            if isinstance(ply, Path):
                ply.replace(path)
            else:
                write_atomically(path, ply)
            size = path.stat().st_size
            stored = StoredResult(path, key, fingerprint, seed, gaussians, self._clock(), size, lane)
            if key is not None:
                described = {**asdict(stored), "path": path.name}
                write_atomically(path.with_suffix(".json"), json.dumps(described).encode())
        except OSError:
            path.unlink(missing_ok=True)
            if isinstance(ply, Path):
                ply.unlink(missing_ok=True)
            raise
        if key is not None:
            with self._lock:
                # Behind all others, whatever the clock says: it may have been set back.
                self._results.pop(key, None)
                self._results[key] = stored
        self.expire()
        return stored

    @property
    def folder(self) -> Path:
        """Where the files lie; temporary ones, ``.NAME.ply.part``, are removed at the next start."""
        return self._folder

    def find(self, key: str) -> StoredResult | None:
        self.expire()
        with self._lock:
            return self._results.get(key)

    def remove(self, key: str) -> bool:
        """Forget a kept result; false if there is none."""
        with self._lock:
            stored = self._results.pop(key, None)
        if stored is None:
            return False
        _unlink(stored)
        return True

    def expire(self) -> None:
        """Remove what is too old and what is more than the spool keeps, first what was stored first."""
        now = self._clock()
        with self._lock:
            newest_first = reversed(self._results.values())
            gone = [r for i, r in enumerate(newest_first) if i >= self._keep or now - r.stored_at > self._ttl]
            for stored in gone:
                del self._results[str(stored.key)]
        for stored in gone:
            _unlink(stored)

    def _load(self) -> None:
        for leftover in (*self._folder.glob("once-*.ply"), *self._folder.glob(".*.ply.*")):
            leftover.unlink(missing_ok=True)
        found: list[StoredResult] = []
        for path in self._folder.glob("*.json"):
            try:
                described = json.loads(path.read_bytes())
                stored = StoredResult(**{**described, "path": self._folder / described["path"]})
                whole = stored.path.stat().st_size == stored.size
            except (OSError, ValueError, TypeError, KeyError) as error:
                log.warning("dropped an unreadable result %s: %s", path.name, error)
                path.unlink(missing_ok=True)
                continue
            if whole and stored.key is not None:
                found.append(stored)
            else:
                _unlink(stored)
        self._results = {str(each.key): each for each in sorted(found, key=lambda each: each.stored_at)}
        self.expire()


def _unlink(stored: StoredResult) -> None:
    stored.path.unlink(missing_ok=True)
    stored.path.with_suffix(".json").unlink(missing_ok=True)
