"""Fetched files held against their manifest at start: every byte once, sizes and dates from then on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from sn17_files import write_atomically

from sn17_trellis.manifest import NAME, Manifest, ManifestError, sha256, verify_manifest

READERS: Final = 4

log = logging.getLogger("sn17.trellis.manifest")

Stamp = list[int | str]
"""Size, date in nanoseconds and SHA-256 of a file when it was read through."""


class VerifiedFiles:
    """A book on disk of files whose content agreed with their manifest; None keeps no book."""

    def __init__(self, book: Path | None) -> None:
        self._book = book

    def verify(self, directory: Path) -> Manifest | None:
        """Hold a directory against its manifest: sizes always, content where a file is new or has changed.

        Their pages stay cached: whoever loads the files next finds them there.

        Raises:
            ManifestError: a file is not what was fetched.
        """
        manifest = verify_manifest(directory)
        if manifest is None:
            log.info("no manifest, so the files are taken as they are", extra={"directory": str(directory)})
            return None
        known = self._read()
        stamps = {
            str(directory / name): _stamp(directory / name, file.sha256)
            for name, file in manifest.files.items()
        }
        unread = [Path(path) for path, stamp in stamps.items() if known.get(path) != stamp]
        started = time.monotonic()
        with ThreadPoolExecutor(READERS) as readers:
            for path, found in zip(unread, readers.map(_hash, unread), strict=True):
                if found != stamps[str(path)][2]:
                    raise ManifestError(f"{path}: its content is not what was fetched (SHA-256 differs)")
        self._write({**known, **stamps})
        log.info(
            "files agree with their manifest",
            extra={
                "directory": str(directory),
                "commit": manifest.commit,
                "files": len(stamps),
                "read_through": len(unread),
                "bytes_read": sum(path.stat().st_size for path in unread),
                "seconds": round(time.monotonic() - started, 3),
            },
        )
        return manifest

    def _read(self) -> dict[str, Stamp]:
        try:
            found = json.loads(self._book.read_bytes()) if self._book else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, stamps: dict[str, Stamp]) -> None:
        if self._book is None:
            return
        try:
            write_atomically(self._book, json.dumps(stamps, indent=1).encode())
        except OSError as error:
            log.warning("could not note which files were verified: %s", error)


def manifest_directories(files: Iterable[Path]) -> list[Path]:
    """The fetched directories that files lie in, each once."""
    found = {parent for file in files for parent in list(file.parents)[:3] if (parent / NAME).is_file()}
    return sorted(found)


def _stamp(path: Path, digest: str) -> Stamp:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, digest]


def _hash(path: Path) -> str:
    return sha256(path, keep_pages=True)
