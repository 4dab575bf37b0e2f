"""Which sn17 this is: the version of the package, and the commit where it runs from a checkout."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

PACKAGE: Final = "sn17"
GIT_SECONDS: Final = 5.0


def version_text(file: Path = Path(__file__)) -> str:
    """Such as ``sn17 0.1.0 (commit 1a2b3c4d5e6f, changed)``; without a commit where ``file`` is installed.

    "changed" says that tracked files of the checkout differ from the commit.
    """
    commit = checkout_commit(file)
    return f"{PACKAGE} {version(PACKAGE)}" + (f" (commit {commit})" if commit else "")


def checkout_commit(file: Path) -> str | None:
    """The commit of the git checkout that tracks ``file``; None without one, or without git."""
    resolved = file.resolve()
    # A virtual environment inside somebody's checkout is not that checkout's code.
    if _git(resolved.parent, "ls-files", "--error-unmatch", resolved.name) is None:
        return None
    commit = _git(resolved.parent, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return None
    return commit + (", changed" if _git(resolved.parent, "status", "--porcelain", "-uno") else "")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
