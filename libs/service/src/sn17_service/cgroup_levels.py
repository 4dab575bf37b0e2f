"""Where the memory control group of this process is mounted, from its own level up to the mount.

Sources: ``/proc/self/cgroup`` (the path within a hierarchy) and ``/proc/self/mountinfo`` (which part of it
is mounted where), see cgroups(7), cgroup_namespaces(7) and proc_pid_mountinfo(5). Both name paths as seen
from the root of the process's cgroup namespace, with ``..`` for what lies above.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Version = Literal[1, 2]

_USAGE: Final = {1: "memory.usage_in_bytes", 2: "memory.current"}
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Levels:
    """``own``: the innermost level with memory files; ``top``: the outermost one that is mounted."""

    version: Version
    own: Path
    top: Path


@dataclass(frozen=True, slots=True)
class _Mount:
    version: Version
    root: str
    point: Path


@dataclass(frozen=True, slots=True)
class _Place:
    """A path seen from a namespace's root: so many levels up, then down by names."""

    up: int
    names: tuple[str, ...]

    @classmethod
    def of(cls, path: str) -> _Place:
        parts = [part for part in path.split("/") if part]
        up = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
        return cls(up, tuple(parts[up:]))


def own_levels(root: Path = Path("/")) -> Levels | None:
    """The levels of this process's memory control group, v2 before v1; None where there is none.

    root: of the machine's files.
    """
    paths = _own_paths(root / "proc/self/cgroup")
    mounts = [*_mounts(root)] or [*_usual_mounts(root)]
    # The mount that shows most of the parents first.
    mounts.sort(
        key=lambda mount: (-mount.version, -_Place.of(mount.root).up, len(_Place.of(mount.root).names))
    )
    candidates = [
        (m, path) for m in mounts if (path := paths.get("" if m.version == 2 else "memory")) is not None
    ]
    for mount, path in candidates:
        folder = _folder(mount, _Place.of(mount.root), _Place.of(path))
        if folder is not None and (levels := _levels(mount, folder)):
            return levels
    # A container may be told the host's path, which leads nowhere: the mount is then the container's own.
    for mount, path in candidates:
        outside = _Place.of(mount.root).up or _Place.of(path).up
        if not outside and (levels := _levels(mount, mount.point)):
            return levels
    return None


def _levels(mount: _Mount, folder: Path) -> Levels | None:
    """From the innermost level at or above ``folder`` that has memory files; None where there is none."""
    if not folder.is_dir():
        return None
    for level in (folder, *folder.parents):
        if not level.is_relative_to(mount.point):
            break
        if (level / _USAGE[mount.version]).exists():
            return Levels(mount.version, level, mount.point)
    return None


def _folder(mount: _Mount, root: _Place, own: _Place) -> Path | None:
    """Where a group is seen below a mount; None where it is not."""
    if root.up == own.up and own.names[: len(root.names)] == root.names:
        return mount.point.joinpath(*own.names[len(root.names) :])
    if root.up > own.up and not root.names:
        return _by_process_id(mount.point, root.up - own.up, own.names)
    return None


def _by_process_id(point: Path, unnamed: int, names: tuple[str, ...]) -> Path | None:
    """The group below ``point`` that holds this process, ``unnamed`` levels and then ``names`` deep."""
    own = str(os.getpid())
    for procs in sorted(point.glob("/".join(["*"] * unnamed + [*names, "cgroup.procs"]))):
        try:
            if own in procs.read_text().split():
                return procs.parent
        except OSError:
            continue
    return None


def _own_paths(path: Path) -> dict[str, str]:
    """Controller to path; v2's single line has the empty controller."""
    found: dict[str, str] = {}
    for line in _lines(path):
        _, _, rest = line.partition(":")
        controllers, _, where = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = where
    return found


def _mounts(root: Path) -> Iterator[_Mount]:
    """Mounts of hierarchies that may have the memory controller; at one point the last one is seen."""
    at: dict[str, _Mount] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        head, _, tail = line.partition(" - ")
        before, after = head.split(), tail.split()
        if len(before) < 5 or len(after) < 3:
            continue
        point = root / _unescaped(before[4]).lstrip("/")
        if after[0] == "cgroup2":
            at[before[4]] = _Mount(2, _unescaped(before[3]), point)
        elif after[0] == "cgroup" and "memory" in after[2].split(","):
            at[before[4]] = _Mount(1, _unescaped(before[3]), point)
    yield from at.values()


def _usual_mounts(root: Path) -> Iterator[_Mount]:
    """Where the hierarchies are by custom, if the table of mounts names none."""
    mount = root / "sys/fs/cgroup"
    if (mount / "cgroup.controllers").exists():
        yield _Mount(2, "/", mount)
    yield _Mount(1, "/", mount / "memory")


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
