"""Processes that come to this one when their parent ends: as process 1 of a container, or as a subreaper."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


def reap_orphans(ours: Collection[int], proc: Path = Path("/proc")) -> list[int]:
    """Reap the children that have ended, except ``ours``, whose starter waits for them itself.

    Returns their ids. Where there is no /proc nothing is done.
    """
    reaped = []
    for pid in _children(proc):
        if pid in ours or _state(proc, pid) != "Z":
            continue
        try:
            found, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if found == pid:
            reaped.append(pid)
    return reaped


def _children(proc: Path) -> list[int]:
    found: list[int] = []
    for task in (proc / "self" / "task").glob("*/children"):
        try:
            found += [int(child) for child in task.read_text().split()]
        except OSError:
            # The thread has ended meanwhile; its children are another thread's now.
            continue
    return sorted(found)


def _state(proc: Path, pid: int) -> str:
    try:
        # The name in brackets may hold anything, brackets and spaces too.
        return (proc / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return ""
