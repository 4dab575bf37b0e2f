#!/usr/bin/env python3
"""Fails where a package that users or images install by default is under the GPL, or names no licence.

.venv/bin/python dev/tools/licences.py            every closure, from uv.lock and the installed metadata
.venv/bin/python dev/tools/licences.py --list     and print each package with its licence
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from image import notices
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[2]

#: What an image or a user installs without asking for more: a workspace package and its extras.
CLOSURES = (
    ("sn17", ()),
    ("sn17", ("torch",)),
    ("sn17-trellis", ()),
    ("sn17-trellis", ("torch",)),
    ("sn17-fixer", ()),
    ("sn17-fixer", ("fast",)),
    ("sn17-miner", ()),
    ("sn17-miner", ("chain",)),
    ("sn17-gateway", ()),
    ("sn17-gateway", ("postgres",)),
    ("sn17-operator", ()),
    ("sn17-devnet", ()),
    ("sn17-train", ()),
)

#: Packages whose metadata names no licence, and what they are under.
KNOWN = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}

GPL = re.compile(r"(?<!L)GPL|GNU (Affero )?General Public", re.IGNORECASE)


def licence_of(name: str) -> str | None:
    """The licence that a package's metadata names, in its own words; None where it names none.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed.
    """
    return notices.licence_of(importlib.metadata.distribution(name)) or KNOWN.get(name)


def is_gpl(licence: str) -> bool:
    """Whether a licence leaves no choice but the GPL or the AGPL. The LGPL is neither."""
    return all(GPL.search(choice) for choice in re.split(r"\bOR\b", licence))


def closure(package: str, extras: Sequence[str], root: Path) -> Iterator[str]:
    """Names of the third-party packages that come with a workspace package on this platform."""
    command = [REPOSITORY / ".bootstrap/bin/uv", "export", "--quiet", "--frozen", "--no-dev", "--no-hashes"]
    command += ["--no-annotate", "--no-header", "--no-emit-workspace", "--package", package]
    for extra in extras:
        command += ["--extra", extra]
    lines = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate():
            yield requirement.name


def problems(root: Path, *, show: bool = False) -> Iterator[str]:
    """One sentence for each package that must not be in a default closure."""
    seen: dict[str, list[str]] = {}
    for package, extras in CLOSURES:
        title = f"{package}[{','.join(extras)}]" if extras else package
        for name in closure(package, extras, root):
            seen.setdefault(name, []).append(title)
    for name, closures in sorted(seen.items()):
        try:
            licence = licence_of(name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} (in {', '.join(closures)}) is not installed: run make sync"
            continue
        if show:
            print(f"{name:24} {licence}")
        if licence is None:
            yield f"{name} (in {', '.join(closures)}) names no licence: find it and add it to KNOWN"
        elif is_gpl(licence):
            yield f"{name} (in {', '.join(closures)}) is under {licence}: move it to the dev group"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print every package with its licence")
    parser.add_argument(
        "--root", type=Path, default=REPOSITORY, help="folder of the workspace and its uv.lock"
    )
    options = parser.parse_args()
    found = list(problems(options.root, show=options.list))
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
