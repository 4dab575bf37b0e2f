"""``sn17-trellis check``: is this directory a checkpoint the engine can load?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sn17_trellis.engine.checkpoint import Repositories
from sn17_trellis.engine.errors import CheckpointError
from sn17_trellis.engine.pipeline import check_checkpoint
from sn17_trellis.manifest import ManifestError, verify_manifest


def main(argv: Sequence[str]) -> int:
    """Exit code 0 for a usable checkpoint; otherwise 1 and a sentence that names file and key."""
    parser = argparse.ArgumentParser(prog="sn17-trellis check", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--root", type=Path, action="append", default=[], help="folder with OWNER/NAME/...")
    parser.add_argument("--hashes", action="store_true", help="read every byte, against the manifest")
    args = parser.parse_args(argv)
    try:
        manifest = verify_manifest(args.directory, hashes=args.hashes)
        config = check_checkpoint(args.directory, Repositories(tuple(args.root)))
    except (CheckpointError, ManifestError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    origin = f"{manifest.repository} at {manifest.commit}" if manifest else "no manifest"
    sys.stdout.write(f"{args.directory}: {config.name}, usable ({origin})\n")
    return 0
