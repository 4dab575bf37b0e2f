"""How much memory this container or process holds, and how much of it cannot be reclaimed.

Unreclaimable is what decides: page cache goes when it must, anonymous memory does not.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from sn17_contract.worker import MemoryStatus

from sn17_service.cgroups import OwnCgroupMemory
from sn17_service.memory_reading import (
    MemoryEvents,
    MemoryReader,
    MemoryReading,
    MemoryUnavailable,
    read_text,
)

Source = Literal["auto", "cgroup", "process"]

__all__ = [
    "AutoMemory",
    "MemoryReader",
    "MemoryReading",
    "MemoryUnavailable",
    "ProcessMemory",
    "Source",
    "memory_reader",
    "memory_status",
    "return_heap",
]


def memory_status(reading: MemoryReading | None) -> MemoryStatus | None:
    """The reading as it goes over the wire."""
    if reading is None:
        return None
    return MemoryStatus(
        unreclaimable_bytes=reading.unreclaimable,
        working_set_bytes=reading.working_set,
        limit_bytes=reading.limit,
    )


class ProcessMemory:
    """This process, from ``/proc/self/status``: resident anonymous and shared memory, page tables."""

    name = "process"
    _KEYS: Final = {"anon": "RssAnon", "shmem": "RssShmem", "pagetables": "VmPTE"}

    def __init__(self, limit: int | None = None, proc: Path = Path("/proc")) -> None:
        self._limit = limit
        self._status = proc / "self" / "status"
        self._children: Callable[[], int] | None = None

    def count(self, children: Callable[[], int]) -> None:
        """Add the bytes of the processes that this one started."""
        self._children = children

    def read(self) -> MemoryReading:
        lines = (line.split() for line in read_text(self._status).splitlines())
        kib = {parts[0].rstrip(":"): int(parts[1]) for parts in lines if len(parts) == 3 and parts[2] == "kB"}
        if "RssAnon" not in kib:
            raise MemoryUnavailable(f"{self._status} has no RssAnon")
        components = {name: kib.get(key, 0) * 1024 for name, key in self._KEYS.items()}
        working_set = kib.get("VmRSS", 0) * 1024
        if self._children is not None:
            components["children"] = self._children()
            working_set += components["children"]
        return MemoryReading(sum(components.values()), working_set, self._limit, components)

    def events(self) -> MemoryEvents | None:
        return None


class AutoMemory:
    """The control group while it has a limit, else this process; a limit may be set at any time."""

    def __init__(self, cgroup: OwnCgroupMemory, process: ProcessMemory) -> None:
        self._cgroup = cgroup
        self._process = process
        self._limited = False
        try:
            self._limited = cgroup.read().limit is not None
        except MemoryUnavailable:
            return

    def count(self, children: Callable[[], int]) -> None:
        """As :meth:`ProcessMemory.count`; a control group counts all of them anyway."""
        self._process.count(children)

    @property
    def name(self) -> str:
        return self._cgroup.name if self._limited else self._process.name

    def read(self) -> MemoryReading:
        try:
            reading = self._cgroup.read()
        except MemoryUnavailable:
            # That a limit which was there cannot be read is no reason to believe that there is none.
            if self._limited:
                raise
            return self._process.read()
        self._limited = reading.limit is not None
        return reading if self._limited else self._process.read()

    def events(self) -> MemoryEvents | None:
        return self._cgroup.events() if self._limited else None


def memory_reader(source: Source, limit: int | None = None, *, root: Path = Path("/")) -> MemoryReader:
    """The reader for ``source``; ``auto`` takes the cgroup only where it has a limit.

    Raises:
        MemoryUnavailable: ``cgroup`` was asked for and there is none.
    """
    process = ProcessMemory(limit, root / "proc")
    if source == "process":
        return process
    try:
        cgroup = OwnCgroupMemory(root, limit)
    except MemoryUnavailable:
        if source == "cgroup":
            raise
        return process
    return cgroup if source == "cgroup" else AutoMemory(cgroup, process)


def return_heap() -> None:
    """Collect garbage and give free heap back to the kernel (glibc; elsewhere only the first)."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).malloc_trim(0)
        except (OSError, AttributeError):
            return
