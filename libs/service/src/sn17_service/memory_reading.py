"""What a reader of memory answers, and how the kernel's small files are read."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_GONE: Final = (errno.ENOENT, errno.ENODEV)
"""A file that is not there; ENODEV: its control group was removed after the file was opened."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes. ``limit`` is None where there is none; ``components`` add up to ``unreclaimable``.

    ``level`` names the control group that is meant: the one that holds the limit.
    """

    unreclaimable: int
    working_set: int
    limit: int | None
    components: Mapping[str, int]
    level: str | None = None

    @property
    def ratio(self) -> float | None:
        """Unreclaimable share of the limit."""
        return None if self.limit is None else self.unreclaimable / self.limit


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """How often the kernel ran out of memory in a control group and its children; None: it does not count.

    ``oom``: a limit of the group was reached and nothing could be reclaimed. ``oom_kill``: processes of the
    group that were killed, whoever's limit it was. ``oom_group_kill``: times the whole group was killed.
    """

    oom: int | None
    oom_kill: int
    oom_group_kill: int | None


class MemoryUnavailable(OSError):  # noqa: N818
    """The kernel's files are missing or unreadable: the state of memory is unknown."""


class MemoryReader(Protocol):
    """One way to learn the reading; ``name`` is shown to people."""

    @property
    def name(self) -> str: ...

    def read(self) -> MemoryReading:
        """Raises MemoryUnavailable."""
        ...

    def events(self) -> MemoryEvents | None:
        """What the OOM killer did; None where the source has no such counts. Raises MemoryUnavailable."""
        ...


def read_text(path: Path) -> str:
    """Raises MemoryUnavailable."""
    try:
        return path.read_text()
    except OSError as error:
        raise MemoryUnavailable(f"cannot read {path}: {error.strerror}") from error


def read_number(path: Path) -> int:
    """Raises MemoryUnavailable."""
    return _number(path, read_text(path))


def read_limit(path: Path, unlimited: int | None = None) -> int | None:
    """A limit in bytes; None for ``max``, from ``unlimited`` on, and where the file is gone.

    Raises:
        MemoryUnavailable: it is there and cannot be understood.
    """
    try:
        text = path.read_text()
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise MemoryUnavailable(f"cannot read {path}: {error.strerror}") from error
    if text.strip() == "max":
        return None
    value = _number(path, text)
    return None if unlimited is not None and value >= unlimited else value


def read_pairs(path: Path) -> dict[str, int]:
    """Lines of a name and a whole number; others are left out. Raises MemoryUnavailable."""
    pairs = (line.split() for line in read_text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _number(path: Path, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise MemoryUnavailable(f"{path} holds no number") from None
