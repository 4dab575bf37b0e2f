"""What a check finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended. What could not be found out is ``UNKNOWN`` and never ``OK``."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_USED = "not used"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about what was found; ``remedy`` says what to do, ``command`` is a shell line for it."""

    outcome: Outcome
    said: str
    remedy: str = ""
    command: str = ""


class ProbeError(Exception):
    """What a check needs to know cannot be found out; the message says why."""

    def __init__(self, said: str, remedy: str = "", command: str = "") -> None:
        super().__init__(said)
        self.finding = Finding(Outcome.UNKNOWN, said, remedy, command)


@dataclass(frozen=True, slots=True)
class Check:
    """``run`` probes and judges; after ``seconds`` its outcome is unknown. It may raise ProbeError."""

    name: str
    run: Callable[[], Finding]
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """A check's name and what it found."""

    name: str
    finding: Finding


def exit_code(results: Iterable[Result]) -> int:
    """1 as soon as one check failed or is unknown, else 0."""
    bad = (Outcome.FAILED, Outcome.UNKNOWN)
    return int(any(result.finding.outcome in bad for result in results))


def ok(said: str) -> Finding:
    return Finding(Outcome.OK, said)


def failed(said: str, remedy: str = "", command: str = "") -> Finding:
    return Finding(Outcome.FAILED, said, remedy, command)


def warning(said: str, remedy: str = "", command: str = "") -> Finding:
    return Finding(Outcome.WARNING, said, remedy, command)


def unknown(said: str, remedy: str = "", command: str = "") -> Finding:
    return Finding(Outcome.UNKNOWN, said, remedy, command)


def not_used(said: str, remedy: str = "") -> Finding:
    return Finding(Outcome.NOT_USED, said, remedy)
