"""``sn17-trellis fetch``: download checkpoints at a given revision and record what came."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sn17_trellis.engine.config import OWNERS, ROLES, PipelineConfig
from sn17_trellis.manifest import NAME, Manifest, ManifestError, differences, read_manifest, write_manifest

TRANSFORMERS_FILES = ("*.json", "*.txt", "model.safetensors")


def fetch(repository: str, revision: str, into: Path, only: Sequence[str] = ()) -> Path:
    """Download what the engine needs of one repository into ``into/<owner>/<name>``.

    Of a TRELLIS repository these are ``pipeline.json`` and four networks, of any other the files
    `transformers` reads; ``only`` names files instead. What lies there already is held against its manifest
    first: where all of it is whole and of that commit, the hub is not asked. Raises whatever huggingface_hub
    raises when the hub refuses.
    """
    directory = into / repository
    manifest = keep_what_is_whole(directory)
    if manifest is not None and manifest.commit == revision and manifest.has(only):
        return directory
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    commit = HfApi().model_info(repository, revision=revision).sha
    if commit is None:
        raise ValueError(f"the hub names no commit for {repository} at {revision}")
    names = HfApi().list_repo_files(repository, revision=commit)
    patterns = list(only or TRANSFORMERS_FILES)
    if not only and "pipeline.json" in names:
        hf_hub_download(repository, "pipeline.json", revision=commit, local_dir=directory)
        try:
            models = json.loads((directory / "pipeline.json").read_text())["args"]["models"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError("its pipeline.json names no models") from error
        own = [models[role] for role in ROLES if role in models and f"{models[role]}.json" in names]
        patterns = ["pipeline.json", *(f"{path}.{kind}" for path in own for kind in ("json", "safetensors"))]
    snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=patterns)
    fetched = [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.name != NAME and ".cache" not in path.relative_to(directory).parts
    ]
    partial = bool(only) and (manifest is None or manifest.partial)
    write_manifest(directory, repository, revision, commit, fetched, partial=partial)
    return directory


def keep_what_is_whole(directory: Path) -> Manifest | None:
    """The manifest whose files all lie here, whole. Removes files that are not what their manifest says.

    A downloader that trusts size and date would keep them, and a new manifest would bless them.
    """
    try:
        manifest = read_manifest(directory)
    except ManifestError as error:
        sys.stderr.write(f"{error}\n")
        manifest = None
    if manifest is None:
        return None
    wrong = list(differences(directory, manifest, hashes=True))
    for file, problem in wrong:
        sys.stderr.write(f"{file}: {problem}\n")
        file.unlink(missing_ok=True)
    if wrong:
        (directory / NAME).unlink()
        return None
    return manifest


def needed(directory: Path, into: Path) -> dict[str, tuple[str, ...]]:
    """Repositories that a fetched one refers to and that are not there yet; of each the files, () for all."""
    try:
        config = PipelineConfig.model_validate_json((directory / "pipeline.json").read_bytes())
    except (OSError, ValidationError):
        # Not a TRELLIS repository, or one that `check` has something to say about.
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for role in ROLES:
        entry = config.args.models.get(role, "")
        repository, path = _split(entry)
        files = tuple(f"{path}.{end}" for end in ("json", "safetensors"))
        if not path or (directory / f"{entry}.safetensors").is_file():
            continue
        if not any((place / files[1]).is_file() for place in _places(repository, into)):
            found[repository] = (*found.get(repository, ()), *files)
    entry = config.conditioner
    inside = (directory / entry / "config.json").is_file()
    if not inside and not any((place / "config.json").is_file() for place in _places(entry, into)):
        found[entry] = ()
    return found


def _split(entry: str) -> tuple[str, str]:
    """``OWNER/NAME/rest`` into repository and rest; no rest for a path of the repository itself."""
    parts = entry.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def _places(repository: str, into: Path) -> list[Path]:
    owner, _, name = repository.partition("/")
    return [into / each / name for each in (OWNERS if owner in OWNERS else (owner,))]


class _Revisions:
    """``--needed`` as given: a revision for one repository, or one for all the others."""

    def __init__(self, entries: Sequence[str]) -> None:
        named = [entry.partition("@") for entry in entries]
        self._by_name = {name: revision for name, at, revision in named if at}
        self._others = next((name for name, at, _ in named if not at), None)

    def of(self, repository: str) -> str | None:
        return self._by_name.get(repository, self._others)


def _fetch_all(
    wanted: Sequence[tuple[str, str]], revisions: _Revisions, into: Path
) -> tuple[list[Path], list[str]]:
    """The folders fetched, and a line for each repository that could not be."""
    todo = [(repository, revision, tuple[str, ...]()) for repository, revision in wanted]
    fetched, failed, seen = list[Path](), list[str](), set[str]()
    while todo:
        repository, revision, only = todo.pop(0)
        seen.add(repository)
        try:
            fetched.append(fetch(repository, revision, into, only))
            sys.stdout.write(f"{fetched[-1]}\n")
        except Exception as error:
            failed.append(f"{repository}@{revision}: {error}")
        if not todo:
            more = {name: files for path in fetched for name, files in needed(path, into).items()}
            known = {name: revisions.of(name) for name in more if name not in seen}
            todo = [(name, revision, more[name]) for name, revision in known.items() if revision]
    return fetched, failed


def main(argv: Sequence[str]) -> int:
    """Fetch each ``OWNER/NAME@REVISION`` and what it refers to; 1 when anything is missing afterwards."""
    parser = argparse.ArgumentParser(prog="sn17-trellis fetch", description=__doc__)
    parser.add_argument("repository", nargs="+", help="OWNER/NAME@REVISION; the revision is required")
    parser.add_argument("--into", type=Path, required=True, help="folder that gets OWNER/NAME/...")
    parser.add_argument(
        "--needed",
        metavar="[OWNER/NAME@]REVISION",
        action="append",
        default=[],
        help="fetch what these refer to as well: that repository at this revision, or all others; repeatable",
    )
    args = parser.parse_args(argv)
    for entry in args.repository + [entry for entry in args.needed if "@" in entry]:
        repository, _, revision = entry.partition("@")
        if repository.count("/") != 1 or not revision:
            parser.error(f"{entry!r}: write OWNER/NAME@REVISION (a commit, tag or branch)")
    wanted = [(name, revision) for name, _, revision in (entry.partition("@") for entry in args.repository)]
    fetched, failed = _fetch_all(wanted, _Revisions(args.needed), args.into)
    missing = dict[str, str]()
    for path in fetched:
        for name, files in needed(path, args.into).items():
            what = f"{len(files) // 2} networks" if files else "the conditioning model"
            missing.setdefault(name, f"{path} needs {what} of {name}: give --needed {name}@REVISION")
    for line in (*failed, *missing.values()):
        sys.stderr.write(f"{line}\n")
    if failed or missing:
        sys.stderr.write(f"not complete: {len(failed)} not fetched, {len(missing)} repositories missing\n")
    return 1 if failed or missing else 0
