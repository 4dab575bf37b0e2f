#!/usr/bin/env python3
"""One version for the whole project, and what a release adds to the packages' metadata.

    python3 dev/tools/release.py version              the version, as the root pyproject.toml names it
    python3 dev/tools/release.py tag                  the tag of images: a release's version, else the commit
    python3 dev/tools/release.py set-version 0.2.0    write it to every package, the lock file and the chart
    python3 dev/tools/release.py set-urls URL         write the address of the repository to every package

`tests/rules/test_one_version.py` fails where two places differ.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION_FORM = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


def packages(root: Path = REPOSITORY) -> list[Path]:
    """The pyproject.toml of every workspace package."""
    members = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
    return sorted(path for pattern in members for path in root.glob(f"{pattern}/pyproject.toml"))


def current(root: Path = REPOSITORY) -> str:
    """The project's version: that of the root pyproject.toml."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def image_tag(root: Path = REPOSITORY) -> str:
    """The tag of images built from this tree.

    The version where HEAD is that release (tag vX.Y.Z) and nothing has changed, or where git knows nothing of
    the tree; else the short commit, with "-changed" behind it where tracked files differ from it.
    """
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return current(root)
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        return f"{commit}-changed"
    released = f"v{current(root)}" in (_git(root, "tag", "--points-at", "HEAD") or "").split()
    return current(root) if released else commit


def _git(root: Path, *arguments: str) -> str | None:
    """What git says about the tree; None where it is no checkout of its own, or git is not there."""
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def set_version(version: str, root: Path = REPOSITORY) -> None:
    """Write `version` to all places that name it.

    Raises:
        ValueError: it is not MAJOR.MINOR.PATCH, with aN, bN or rcN behind it if need be.
    """
    if not VERSION_FORM.fullmatch(version):
        raise ValueError(f"{version!r} is not a version such as 0.2.0 or 0.2.0rc1")
    for path in (root / "pyproject.toml", root / "tests" / "conformance" / "pyproject.toml", *packages(root)):
        _replace(path, r'(?m)^version = ".*"$', f'version = "{version}"')
    chart = root / "charts" / "sn17" / "Chart.yaml"
    _replace(chart, r"(?m)^version: .*$", f"version: {version}")
    _replace(chart, r"(?m)^appVersion: .*$", f'appVersion: "{version}"')
    for path in sorted(root.glob("Dockerfile.*")):
        _replace(path, r"(?m)^ARG VERSION=.*$", f"ARG VERSION={version}")
    lock = root / "uv.lock"
    text = lock.read_text()
    names = [tomllib.loads(path.read_text())["project"]["name"] for path in packages(root)]
    for name in ("sn17-workspace", *names):
        text = re.sub(
            rf'(\[\[package\]\]\nname = "{re.escape(name)}"\nversion = )"[^"]*"', rf'\g<1>"{version}"', text
        )
    lock.write_text(text)


def set_urls(url: str, root: Path = REPOSITORY) -> None:
    """Write the repository's address to the metadata of every package that is published.

    Raises:
        ValueError: it is no https address.
    """
    if not url.startswith("https://"):
        raise ValueError(f"{url!r} is not an https:// address")
    table = f'[project.urls]\nSource = "{url}"\nChangelog = "{url}/blob/main/CHANGELOG.md"\n'
    for path in packages(root):
        text = re.sub(r"(?ms)^\[project\.urls\]\n.*?(?=^\[|\Z)", "", path.read_text())
        path.write_text(text.rstrip("\n") + "\n\n" + table)


def _replace(path: Path, pattern: str, line: str) -> None:
    text, count = re.subn(pattern, line, path.read_text(), count=1)
    if not count:
        raise ValueError(f"{path} names no version")
    path.write_text(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version")
    commands.add_parser("tag")
    commands.add_parser("set-version").add_argument("version")
    commands.add_parser("set-urls").add_argument("url")
    given = parser.parse_args(argv)
    try:
        if given.command == "version":
            print(current())
        elif given.command == "tag":
            print(image_tag())
        elif given.command == "set-version":
            set_version(given.version)
        else:
            set_urls(given.url)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
