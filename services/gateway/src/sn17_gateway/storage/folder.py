"""Files of prompts and results: written beside, synced, then renamed, so that no reader sees a part."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, Final

from sn17_files import publish

from sn17_gateway.core.model import Asset

_NAME: Final = re.compile(r"[0-9a-f-]{1,80}\.(image|result)")
_PARTIAL: Final = ".partial"


class Upload:
    """A file that grows by pieces. ``keep`` makes it visible; without it ``close`` removes it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._target = folder / name
        self.path = folder / (name + _PARTIAL)
        self._digest = hashlib.sha256()
        self._file: BinaryIO = self.path.open("wb")
        self.size = 0

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._digest.update(piece)
        self.size += len(piece)

    def flush(self) -> None:
        """Make what was written readable under ``path``."""
        self._file.flush()

    def keep(self) -> Asset:
        """On disk under its name when this returns."""
        publish(self._file, self.path, self._target)
        return Asset(self._name, self.size, self._digest.hexdigest())

    def close(self) -> None:
        """Remove what was not kept."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Folder:
    """All methods are synchronous: call them on a thread. Several processes may share one folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def create(self) -> None:
        """Raises OSError where the folder can't be written."""
        self._path.mkdir(parents=True, exist_ok=True)
        probe = self._path / f".{os.getpid()}{_PARTIAL}"
        probe.write_bytes(b"")
        probe.unlink()

    def upload(self, name: str) -> Upload:
        """A new file ``name``, which ends in ``.image`` or ``.result``."""
        return Upload(self._path, _checked(name))

    def write(self, name: str, content: bytes) -> Asset:
        """A whole file at once."""
        upload = self.upload(name)
        try:
            upload.write(content)
            return upload.keep()
        finally:
            upload.close()

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        return (self._path / _checked(name)).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """For reading. Raises FileNotFoundError."""
        return (self._path / _checked(name)).open("rb")

    def remove(self, names: Iterable[str]) -> None:
        """Names that are gone already are fine."""
        for name in names:
            (self._path / _checked(name)).unlink(missing_ok=True)

    def older_than(self, moment: float) -> list[str]:
        """Names of files last written before ``moment`` (unix seconds), unfinished uploads included."""
        names = []
        for entry in os.scandir(self._path):
            name = entry.name.removesuffix(_PARTIAL)
            try:
                if _NAME.fullmatch(name) and entry.stat().st_mtime < moment:
                    names.append(entry.name)
            except FileNotFoundError:
                continue
        return names

    def remove_orphans(self, names: Iterable[str], known: frozenset[str]) -> int:
        """Remove what no row names; returns how many files went."""
        orphans = [name for name in names if name not in known]
        for name in orphans:
            (self._path / name).unlink(missing_ok=True)
        return len(orphans)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of this folder")
    return name
