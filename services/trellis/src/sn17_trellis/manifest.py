"""What was fetched, from which commit, with which hashes; later starts hold the files against it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

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


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(
    directory: Path, repository: str, revision: str, commit: str, names: list[str]
) -> Manifest:
    """Record the named files of a directory."""
    files = {
        name: FetchedFile(size=(directory / name).stat().st_size, sha256=sha256(directory / name))
        for name in sorted(names)
    }
    manifest = Manifest(repository=repository, revision=revision, commit=commit, files=files)
    (directory / NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def verify_manifest(directory: Path, *, hashes: bool = False) -> Manifest | None:
    """Sizes (and hashes, which read every byte) against the manifest; None where there is no manifest."""
    path = directory / NAME
    if not path.is_file():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ManifestError(f"{path}: not a manifest: {error.errors()[0]['msg']}") from error
    for name, expected in manifest.files.items():
        file = directory / name
        if not file.is_file():
            raise ManifestError(f"{file}: fetched once, now missing: fetch it again")
        if file.stat().st_size != expected.size:
            raise ManifestError(f"{file}: {file.stat().st_size} bytes, the manifest says {expected.size}")
        if hashes and sha256(file) != expected.sha256:
            raise ManifestError(f"{file}: its content is not what was fetched (SHA-256 differs)")
    return manifest
