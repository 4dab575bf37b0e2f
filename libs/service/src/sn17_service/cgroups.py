"""Memory of a control group: what it holds, and the limit that is reached first.

A limit may stand on any level between the group of the process and the root of the hierarchy. The smallest
one counts, together with what the level that holds it uses: siblings and leftovers fill it as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sn17_service.cgroup_levels import Levels, own_levels
from sn17_service.memory_reading import (
    MemoryEvents,
    MemoryReading,
    MemoryUnavailable,
    read_limit,
    read_number,
    read_pairs,
    read_text,
)

_UNLIMITED_V1: Final = 1 << 60
"""Anything above is v1's way of saying no limit (2^63 rounded to pages)."""


class CgroupV2Memory:
    """``memory.stat`` of cgroup v2: anon + shmem + kernel_stack + pagetables + slab_unreclaimable.

    folder: the group. top: the outermost level whose limit counts; None for the group alone.
    limit: in bytes, instead of all limits of the kernel; held against what the group itself uses.
    """

    name = "cgroup v2"
    _KEYS = ("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable")

    def __init__(self, folder: Path, limit: int | None = None, *, top: Path | None = None) -> None:
        self._levels = _up_to(folder, top)
        self._limit = limit

    def read(self) -> MemoryReading:
        folder, limit = self._levels[0], self._limit
        if limit is None:
            found = [(read_limit(level / "memory.max"), level) for level in self._levels]
            folder, limit = _tightest(found) or (folder, None)
        stat = read_pairs(folder / "memory.stat")
        components = {key: stat.get(key, 0) for key in self._KEYS}
        current = read_number(folder / "memory.current")
        working_set = max(0, current - stat.get("inactive_file", 0))
        return MemoryReading(sum(components.values()), working_set, limit, components, str(folder))

    def events(self) -> MemoryEvents:
        path = self._levels[0] / "memory.events"
        counts = read_pairs(path)
        if "oom_kill" not in counts:
            raise MemoryUnavailable(f"{path} has no oom_kill")
        return MemoryEvents(counts.get("oom"), counts["oom_kill"], counts.get("oom_group_kill"))


class CgroupV1Memory:
    """cgroup v1: total_rss + total_shmem, and kernel memory where it is charged.

    Arguments as for :class:`CgroupV2Memory`. Which limits count is the kernel's own word
    (``hierarchical_memory_limit``): parents need not pass theirs on.
    """

    name = "cgroup v1"

    def __init__(self, folder: Path, limit: int | None = None, *, top: Path | None = None) -> None:
        self._levels = _up_to(folder, top)
        self._limit = limit

    def read(self) -> MemoryReading:
        folder, limit = self._levels[0], self._limit
        stat = read_pairs(folder / "memory.stat")
        if limit is None:
            limit, holder = self._counting(stat.get("hierarchical_memory_limit", _UNLIMITED_V1))
            if holder != folder:
                folder, stat = holder, read_pairs(holder / "memory.stat")
        kernel = folder / "memory.kmem.usage_in_bytes"
        components = {
            "rss": stat.get("total_rss", 0),
            "shmem": stat.get("total_shmem", 0),
            "kmem": read_number(kernel) if kernel.exists() else 0,
        }
        usage = read_number(folder / "memory.usage_in_bytes")
        working_set = max(0, usage - stat.get("total_inactive_file", 0))
        return MemoryReading(sum(components.values()), working_set, limit, components, str(folder))

    def events(self) -> MemoryEvents:
        path = self._levels[0] / "memory.oom_control"
        kills = read_pairs(path).get("oom_kill")
        if kills is None:
            raise MemoryUnavailable(f"{path} has no oom_kill")
        return MemoryEvents(None, kills, None)

    def _counting(self, hierarchical: int) -> tuple[int | None, Path]:
        """The limit that counts and the level that holds it."""
        own = self._levels[0]
        found = [
            (read_limit(level / "memory.limit_in_bytes", _UNLIMITED_V1), level) for level in self._levels
        ]
        if hierarchical >= _UNLIMITED_V1:
            # Either there is none, or the kernel does not tell: then the group's own is what is left.
            return found[0][0], own
        holders = [level for limit, level in found if limit == hierarchical]
        # A limit of a level that is not shown here is nearest to what the outermost level shown holds.
        return hierarchical, holders[-1] if holders else self._levels[-1]


CgroupMemory = CgroupV1Memory | CgroupV2Memory


class OwnCgroupMemory:
    """The control group that this process is in; the process may be moved to another one."""

    def __init__(self, root: Path, limit: int | None) -> None:
        """Raises MemoryUnavailable: there is none."""
        self._root = root
        self._limit = limit
        self._reader = _reader(own_levels(root), limit)
        self._where = self._read_where()

    @property
    def name(self) -> str:
        return self._reader.name

    def read(self) -> MemoryReading:
        return self._current().read()

    def events(self) -> MemoryEvents:
        return self._current().events()

    def _current(self) -> CgroupMemory:
        where = self._read_where()
        if where != self._where:
            self._reader = _reader(own_levels(self._root), self._limit)
            self._where = where
        return self._reader

    def _read_where(self) -> str:
        return read_text(self._root / "proc/self/cgroup")


def memory_cgroup(folder: Path) -> CgroupMemory:
    """The reader for the control group of a folder, without its parents. Raises MemoryUnavailable."""
    if (folder / "memory.current").exists():
        return CgroupV2Memory(folder)
    if (folder / "memory.usage_in_bytes").exists():
        return CgroupV1Memory(folder)
    raise MemoryUnavailable(f"{folder} has no memory files")


def _reader(levels: Levels | None, limit: int | None) -> CgroupMemory:
    if levels is None:
        raise MemoryUnavailable("no memory cgroup found; set SN17_MEMORY_SOURCE=process")
    if levels.version == 2:
        return CgroupV2Memory(levels.own, limit, top=levels.top)
    return CgroupV1Memory(levels.own, limit, top=levels.top)


def _up_to(folder: Path, top: Path | None) -> Sequence[Path]:
    """The folder and its parents up to ``top``, innermost first."""
    if top is None:
        return (folder,)
    return (folder, *(parent for parent in folder.parents if parent.is_relative_to(top)))


def _tightest(limits: Sequence[tuple[int | None, Path]]) -> tuple[Path, int] | None:
    """The smallest limit; of equal ones the outermost, which all the others fill too."""
    known = [(limit, -depth, level) for depth, (limit, level) in enumerate(limits) if limit is not None]
    if not known:
        return None
    limit, _, level = min(known)
    return level, limit
