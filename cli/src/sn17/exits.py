"""The one table of exit codes, for every command, its ``--help`` and the docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, Final


class Exit(IntEnum):
    """How a command ended."""

    DONE = 0
    NO = 1
    CANNOT = 2
    DAMAGED = 3
    UNREPAIRABLE = 4
    FAULT = 70
    HUNG_UP = 129
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    TERMINATED = 143


MEANINGS: Final = {
    Exit.DONE: "done, and nothing is wrong",
    Exit.NO: "done, and the answer is no: a check failed, a generation failed, a task has no outcome, "
    "there is no such thing, or it did not happen in time",
    Exit.CANNOT: "could not be done: an option, file, folder or address cannot be used, or a service that is "
    "needed does not answer or refuses",
    Exit.DAMAGED: "a splat is damaged, or less alike than asked for",
    Exit.UNREPAIRABLE: "a splat cannot be repaired",
    Exit.FAULT: "a fault of sn17 itself",
    Exit.HUNG_UP: "ended by SIGHUP",
    Exit.INTERRUPTED: "ended by Ctrl-C",
    Exit.PIPE_CLOSED: "the reader of a pipe has gone",
    Exit.TERMINATED: "ended by SIGTERM",
}

_COMMON: Final = tuple(code for code in Exit if code not in (Exit.DAMAGED, Exit.UNREPAIRABLE))
MORE: Final = {
    "splat inspect": (Exit.DAMAGED, Exit.UNREPAIRABLE),
    "splat fix": (Exit.UNREPAIRABLE,),
    "splat compare": (Exit.DAMAGED,),
}
"""Codes that only some commands have, by their names."""


def sentence(error: BaseException) -> str:
    """What went wrong, and with which file, in words: Python's own text of an OSError has a number before
    it, and a second name that may be None behind it.
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def codes_of(command: str) -> tuple[Exit, ...]:
    """The codes of one command, such as ``splat inspect``; all there are for the empty name."""
    return tuple(sorted((*_COMMON, *MORE.get(command, ())))) if command else tuple(Exit)


def epilog(command: str) -> str:
    """What ``--help`` of a command says about exit codes."""
    return "Exit codes: " + "; ".join(f"{code.value} {MEANINGS[code]}" for code in codes_of(command)) + "."


def explain(command: Any, name: str) -> Any:
    """Give ``command`` and all below it their paragraph on exit codes; ``name`` is as on the command line."""
    command.epilog = epilog(name)
    for own, below in getattr(command, "commands", {}).items():
        explain(below, f"{name} {own}".strip())
    return command


def markdown() -> str:
    """The table for the docs."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    yield "| code | meaning | commands |"
    yield "|---|---|---|"
    for code in Exit:
        who: Iterable[str] = [f"`sn17 {name}`" for name, codes in MORE.items() if code in codes]
        yield f"| {code.value} | {MEANINGS[code]} | {', '.join(who) or 'all'} |"
