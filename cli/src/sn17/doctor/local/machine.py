"""Python, disk, ports and clock."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sn17.doctor.model import Finding, failed, ok, unknown, warning

LEAST_PYTHON: Final = (3, 11)
MIB: Final = 1024 * 1024
LEAST_FREE_BYTES: Final = 512 * MIB
"""The miner pulls no tasks with less than 256 MiB free; logs and assets of a run take as much again."""
LEAST_FREE_INODES: Final = 1000
CLOCK_SKEW_SECONDS: Final = 2.0
"""As the chart's alert SN17ClockSkew: validators refuse what is signed too far from their own time."""


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter that runs this."""

    version: tuple[int, int, int]
    executable: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds ``folder``; ``runs``: ended runs below it and their bytes, largest first."""

    folder: Path
    free_bytes: int
    free_inodes: int | None
    writable: bool
    runs: tuple[tuple[Path, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """Whether a process can listen there. ``holder``: name and id of the process that does already."""

    number: int
    free: bool
    wanted: bool = False
    holder: tuple[str, int] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Clock:
    """``synchronised``: does the kernel say that something keeps the clock in step; None: it does not tell.
    ``offset_seconds``: of this clock before the API server's.
    """

    synchronised: bool | None
    offset_seconds: float | None = None


def judge_python(found: Python) -> Finding:
    version = ".".join(str(part) for part in found.version)
    if found.version[:2] < LEAST_PYTHON:
        return failed(
            f"Python {version} ({found.executable}); 3.11 or newer is needed",
            "set PYTHON to a newer one and install again",
            "make sync PYTHON=python3.11",
        )
    return ok(f"{version} ({found.executable})")


def judge_disk(found: Disk) -> Finding:
    if not found.writable:
        return failed(
            f"{found.folder} is not writable for this user",
            "name another folder with --state-dir, or give it to this user",
            f"chmod u+rwx {shlex.quote(str(found.folder))}",
        )
    free = f"{found.free_bytes // MIB} MiB free at {found.folder}"
    short = found.free_bytes < LEAST_FREE_BYTES
    if not short and (found.free_inodes is None or found.free_inodes >= LEAST_FREE_INODES):
        return ok(free)
    said = (
        f"{free}; a run needs {LEAST_FREE_BYTES // MIB}"
        if short
        else (
            f"{found.free_inodes} files can still be made at {found.folder}; a run needs {LEAST_FREE_INODES}"
        )
    )
    if not found.runs:
        return failed(said, "make room there, or name a folder elsewhere with --state-dir")
    missing = max(0, LEAST_FREE_BYTES - found.free_bytes)
    chosen: list[Path] = []
    for path, size in found.runs:
        chosen.append(path)
        missing -= size
        if missing <= 0:
            break
    return failed(
        said,
        f"delete what ended runs have left (the largest of {len(found.runs)})",
        f"rm -r -- {' '.join(shlex.quote(str(path)) for path in chosen)}",
    )


def judge_ports(found: Sequence[Port]) -> Finding:
    taken = [port for port in found if not port.free]
    if not taken:
        return ok(f"free: {', '.join(str(port.number) for port in found)}")
    said = ", ".join(f"{port.number} ({_who(port)})" for port in taken)
    holders = sorted({port.holder[1] for port in taken if port.holder})
    command = f"kill {' '.join(str(pid) for pid in holders)}" if holders else ""
    if any(port.wanted for port in taken):
        return failed(f"taken: {said}", "choose another port, or end what listens there", command)
    return warning(
        f"taken: {said}; sn17 up needs none of them, a service started by hand does",
        "give such a service another one with SN17_PORT and SN17_OPS_PORT, or end what listens there",
        command,
    )


def _who(port: Port) -> str:
    if port.holder:
        return f"{port.holder[0]}, process {port.holder[1]}"
    return port.reason or "by a process of another user"


def judge_clock(found: Clock) -> Finding:
    remedy = "let a time service keep it"
    command = "timedatectl set-ntp true"
    if found.offset_seconds is not None and abs(found.offset_seconds) > CLOCK_SKEW_SECONDS:
        side = "ahead of" if found.offset_seconds > 0 else "behind"
        return failed(
            f"{abs(found.offset_seconds):.0f} s {side} the API server's clock; validators refuse "
            f"signatures that are more than {CLOCK_SKEW_SECONDS:.0f} s off",
            remedy,
            command,
        )
    if found.synchronised is None and found.offset_seconds is None:
        return unknown("the kernel does not tell whether anything keeps the clock in step", remedy, command)
    beside = "" if found.offset_seconds is None else "; agrees with the API server's"
    if found.synchronised is False:
        return warning(f"the kernel knows of no time service that keeps it in step{beside}", remedy, command)
    return ok(f"kept in step{beside}" if found.synchronised else "agrees with the API server's")
