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


def main(argv: Sequence[str]) -> int:
    """Fetch each ``OWNER/NAME@REVISION``; what they need beyond that is named, or fetched too."""
    parser = argparse.ArgumentParser(prog="sn17-trellis fetch", description=__doc__)
    parser.add_argument("repository", nargs="+", help="OWNER/NAME@REVISION; the revision is required")
    parser.add_argument("--into", type=Path, required=True, help="folder that gets OWNER/NAME/...")
    parser.add_argument(
        "--needed",
        metavar="REVISION",
        help="fetch what these refer to as well, at this revision",
    )
    args = parser.parse_args(argv)
    wanted = [entry.partition("@") for entry in args.repository]
    for repository, _, revision in wanted:
        if repository.count("/") != 1 or not revision:
            parser.error(f"{repository!r}: write OWNER/NAME@REVISION (a commit, tag or branch)")
    todo = [(repository, revision, tuple[str, ...]()) for repository, _, revision in wanted]
    fetched: list[Path] = []
    seen = set[str]()
    while todo:
        repository, revision, only = todo.pop(0)
        seen.add(repository)
        try:
            fetched.append(fetch(repository, revision, args.into, only))
        except Exception as error:
            sys.stderr.write(f"{repository}: {error}\n")
            return 1
        sys.stdout.write(f"{fetched[-1]}\n")
        if not todo and args.needed:
            more = {name: files for path in fetched for name, files in needed(path, args.into).items()}
            todo = [(name, args.needed, files) for name, files in more.items() if name not in seen]
    for path in fetched:
        for name, files in needed(path, args.into).items():
            what = f"{len(files) // 2} networks" if files else "its conditioning model"
            sys.stderr.write(
                f"{path} needs {what} of {name}: fetch {name}@REVISION too, or give --needed REVISION\n"
            )
    return 0
