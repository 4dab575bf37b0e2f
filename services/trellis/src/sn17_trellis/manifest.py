"""What was fetched, from which commit, with which hashes; later starts hold the files against it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from sn17_files import write_atomically

NAME: Final = "sn17-manifest.json"


class ManifestError(Exception):
    """Files do not agree with their manifest; the message names the file."""


class FetchedFile(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Manifest(BaseModel):
    """One fetched repository: the revision asked for and the commit it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    revision: str
    commit: str
    files: dict[str, FetchedFile]
    partial: bool = False
    """Holds single files that another repository refers to."""

    def has(self, names: Sequence[str]) -> bool:
        """Whether the named files, or without names everything the engine needs, were fetched."""
        return set(names) <= set(self.files) if names else not self.partial


def sha256(path: Path, *, keep_pages: bool = False) -> str:
    """Hash of a file, read in pieces; its pages, which count against a pod's memory, are let go of."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if not keep_pages and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return found


def write_manifest(
    directory: Path, repository: str, revision: str, commit: str, names: list[str], *, partial: bool = False
) -> Manifest:
    """Record the named files of a directory."""
    files = {
        name: FetchedFile(size=(directory / name).stat().st_size, sha256=sha256(directory / name))
        for name in sorted(names)
    }
    manifest = Manifest(repository=repository, revision=revision, commit=commit, files=files, partial=partial)
    write_atomically(directory / NAME, manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a directory; None where there is none. Raises ManifestError."""
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ManifestError(f"{path}: not a manifest: {error.errors()[0]['msg']}") from error


def differences(directory: Path, manifest: Manifest, *, hashes: bool) -> Iterator[tuple[Path, str]]:
    """Files that are not what was fetched, each with what is wrong; `hashes` reads every byte."""
    for name, expected in manifest.files.items():
        file = directory / name
        if not file.is_file():
            yield file, "fetched once, now missing: fetch it again"
        elif file.stat().st_size != expected.size:
            yield file, f"{file.stat().st_size} bytes, the manifest says {expected.size}"
        elif hashes and sha256(file) != expected.sha256:
            yield file, "its content is not what was fetched (SHA-256 differs)"


def verify_manifest(directory: Path, *, hashes: bool = False) -> Manifest | None:
    """The manifest, with which every file agrees; None where there is none. Raises ManifestError."""
    manifest = read_manifest(directory)
    if manifest is not None:
        for file, problem in differences(directory, manifest, hashes=hashes):
            raise ManifestError(f"{file}: {problem}")
    return manifest
