"""How much memory this container or process holds, and how much of it can not be reclaimed.

Unreclaimable is what decides: page cache goes when it must, anonymous memory does not.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from sn17_contract.worker import MemoryStatus

Source = Literal["auto", "cgroup", "process"]

_UNLIMITED: Final = 1 << 60
"""Anything above is the kernel's way of saying no limit (v1 writes 2^63 rounded to pages)."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes. ``limit`` is None where there is none; ``components`` add up to ``unreclaimable``."""

    unreclaimable: int
    working_set: int
    limit: int | None
    components: Mapping[str, int]

    @property
    def ratio(self) -> float | None:
        """Unreclaimable share of the limit."""
        return None if self.limit is None else self.unreclaimable / self.limit


def memory_status(reading: MemoryReading | None) -> MemoryStatus | None:
    """The reading as it goes over the wire."""
    if reading is None:
        return None
    return MemoryStatus(
        unreclaimable_bytes=reading.unreclaimable,
        working_set_bytes=reading.working_set,
        limit_bytes=reading.limit,
    )


class MemoryUnavailable(OSError):  # noqa: N818
    """The kernel's files are missing or unreadable: the state of memory is unknown."""


class MemoryReader(Protocol):
    """One way to learn the reading; ``name`` is shown to people."""

    @property
    def name(self) -> str: ...

    def read(self) -> MemoryReading:
        """Raises MemoryUnavailable."""
        ...


class CgroupV2Memory:
    """``memory.stat`` of cgroup v2: anon + shmem + kernel_stack + pagetables + slab_unreclaimable."""

    name = "cgroup v2"
    _KEYS = ("anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable")

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = limit

    def read(self) -> MemoryReading:
        stat = _stat(self._folder / "memory.stat")
        components = {key: stat.get(key, 0) for key in self._KEYS}
        current = _number(self._folder / "memory.current")
        limit = self._limit or _limit(self._folder / "memory.max")
        return MemoryReading(
            sum(components.values()), max(0, current - stat.get("inactive_file", 0)), limit, components
        )


class CgroupV1Memory:
    """cgroup v1: total_rss + total_shmem, and kernel memory where it is charged."""

    name = "cgroup v1"

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = limit

    def read(self) -> MemoryReading:
        stat = _stat(self._folder / "memory.stat")
        kernel = self._folder / "memory.kmem.usage_in_bytes"
        components = {
            "rss": stat.get("total_rss", 0),
            "shmem": stat.get("total_shmem", 0),
            "kmem": _number(kernel) if kernel.exists() else 0,
        }
        usage = _number(self._folder / "memory.usage_in_bytes")
        own = _limit(self._folder / "memory.limit_in_bytes")
        inherited = stat.get("hierarchical_memory_limit", _UNLIMITED)
        limit = self._limit or min((v for v in (own, inherited) if v and v < _UNLIMITED), default=None)
        return MemoryReading(
            sum(components.values()), max(0, usage - stat.get("total_inactive_file", 0)), limit, components
        )


class ProcessMemory:
    """This process alone, from ``/proc/self/status``: resident anonymous and shared memory, page tables."""

    name = "process"
    _KEYS: Final = {"anon": "RssAnon", "shmem": "RssShmem", "pagetables": "VmPTE"}

    def __init__(self, limit: int | None = None, proc: Path = Path("/proc")) -> None:
        self._limit = limit
        self._status = proc / "self" / "status"

    def read(self) -> MemoryReading:
        lines = (line.split() for line in _text(self._status).splitlines())
        kib = {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) == 3 and parts[2] == "kB"}
        if "RssAnon" not in kib:
            raise MemoryUnavailable(f"{self._status} has no RssAnon")
        components = {name: kib.get(key, 0) * 1024 for name, key in self._KEYS.items()}
        return MemoryReading(sum(components.values()), kib.get("VmRSS", 0) * 1024, self._limit, components)


def memory_reader(source: Source, limit: int | None = None, *, root: Path = Path("/")) -> MemoryReader:
    """The reader for ``source``; ``auto`` takes the cgroup only where it has a limit.

    Raises:
        MemoryUnavailable: ``cgroup`` was asked for and there is none.
    """
    process = ProcessMemory(limit, root / "proc")
    if source == "process":
        return process
    cgroup = find_cgroup(root, limit)
    if source == "cgroup":
        if cgroup is None:
            raise MemoryUnavailable("no memory cgroup found; set SN17_MEMORY_SOURCE=process")
        return cgroup
    try:
        limited = cgroup is not None and cgroup.read().limit is not None
    except MemoryUnavailable:
        limited = False
    return cgroup if cgroup is not None and limited else process


def find_cgroup(root: Path = Path("/"), limit: int | None = None) -> MemoryReader | None:
    """The memory cgroup of this process: its own path where it is mounted, else the mount's root.

    Inside a container the mount's root is the container's cgroup, whatever ``/proc/self/cgroup`` says.
    """
    mount = root / "sys/fs/cgroup"
    paths = _own_paths(root / "proc/self/cgroup")
    if (mount / "cgroup.controllers").exists():
        own = mount / paths.get("", "").lstrip("/")
        for folder in (own, mount):
            if (folder / "memory.current").exists():
                return CgroupV2Memory(folder, limit)
        return None
    own = mount / "memory" / paths.get("memory", "").lstrip("/")
    for folder in (own, mount / "memory"):
        if (folder / "memory.usage_in_bytes").exists():
            return CgroupV1Memory(folder, limit)
    return None


def return_heap() -> None:
    """Collect garbage and give free heap back to the kernel (glibc; elsewhere only the first)."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return


def _own_paths(path: Path) -> dict[str, str]:
    """Controller to path; v2's single line has the empty controller."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, where = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = where
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise MemoryUnavailable(f"can not read {path}: {error.strerror}") from error


def _number(path: Path) -> int:
    text = _text(path).strip()
    try:
        return int(text)
    except ValueError:
        raise MemoryUnavailable(f"{path} holds no number") from None


def _limit(path: Path) -> int | None:
    if not path.exists() or _text(path).strip() == "max":
        return None
    value = _number(path)
    return value if value < _UNLIMITED else None


def _stat(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
