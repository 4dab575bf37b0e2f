"""``sn17-trellis fetch``: download checkpoints at a given revision and record what came."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sn17_trellis.manifest import NAME, ManifestError, differences, read_manifest, write_manifest

ROLES = ("sparse_structure_flow_model", "sparse_structure_decoder", "slat_flow_model", "slat_decoder_gs")
TRANSFORMERS_FILES = ("*.json", "*.txt", "model.safetensors")


def fetch(repository: str, revision: str, into: Path) -> Path:
    """Download what the engine needs of one repository into ``into/<owner>/<name>``.

    Of a TRELLIS repository these are ``pipeline.json`` and four networks, of any other the files
    `transformers` reads. What lies there already is held against its manifest first: where all of it is whole
    and of that commit, the hub is not asked. Raises whatever huggingface_hub raises when the hub refuses.
    """
    directory = into / repository
    if keep_what_is_whole(directory) == revision:
        return directory
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    commit = HfApi().model_info(repository, revision=revision).sha
    if commit is None:
        raise ValueError(f"the hub names no commit for {repository} at {revision}")
    names = HfApi().list_repo_files(repository, revision=commit)
    patterns = list(TRANSFORMERS_FILES)
    if "pipeline.json" in names:
        hf_hub_download(repository, "pipeline.json", revision=commit, local_dir=directory)
        models = json.loads((directory / "pipeline.json").read_text())["args"]["models"]
        own = [models[role] for role in ROLES if role in models and f"{models[role]}.json" in names]
        patterns = ["pipeline.json", *(f"{path}.{kind}" for path in own for kind in ("json", "safetensors"))]
    snapshot_download(repository, revision=commit, local_dir=directory, allow_patterns=patterns)
    fetched = [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and path.name != NAME and ".cache" not in path.relative_to(directory).parts
    ]
    write_manifest(directory, repository, revision, commit, fetched)
    return directory


def keep_what_is_whole(directory: Path) -> str | None:
    """The commit whose files all lie here, whole. Removes files that are not what their manifest says.

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
    return manifest.commit


def main(argv: Sequence[str]) -> int:
    """Fetch each ``OWNER/NAME@REVISION``."""
    parser = argparse.ArgumentParser(prog="sn17-trellis fetch", description=__doc__)
    parser.add_argument("repository", nargs="+", help="OWNER/NAME@REVISION; the revision is required")
    parser.add_argument("--into", type=Path, required=True, help="folder that gets OWNER/NAME/...")
    args = parser.parse_args(argv)
    wanted = [entry.partition("@") for entry in args.repository]
    for repository, _, revision in wanted:
        if repository.count("/") != 1 or not revision:
            parser.error(f"{repository!r}: write OWNER/NAME@REVISION (a commit, tag or branch)")
    for repository, _, revision in wanted:
        try:
            directory = fetch(repository, revision, args.into)
        except Exception as error:
            sys.stderr.write(f"{repository}: {error}\n")
            return 1
        sys.stdout.write(f"{directory}\n")
    return 0
