"""A note beside the output of a task that is under way, so that the same command picks it up again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from sn17_contract.files import Versioned, WrongShapeError
from sn17_files import write_atomically

from sn17.generate.wishes import Wish
from sn17.splat.formats import STDIO

USABLE_SECONDS: Final = 24 * 3600.0
"""Longer than any gateway keeps a result."""


class TaskNote(Versioned):
    """``wish`` is the digest of what was asked for, ``at`` Unix seconds.

    ``request`` names the handing in; ``task`` is None while its answer has not come.
    """

    schema_: Literal["sn17.generate/v1"] = Field("sn17.generate/v1", alias="schema")
    gateway: str
    task: str | None
    request: str = ""
    wish: str
    at: float


@dataclass(frozen=True, slots=True)
class Notes:
    """``gateway`` names the gateway, the same in every run that means it."""

    gateway: str

    def path(self, wish: Wish) -> Path | None:
        """Where the note of a wish lies; None for standard output."""
        if wish.output == STDIO:
            return None
        output = Path(wish.output)
        return output.with_name(f".{output.name}.sn17-task")

    def find(self, wish: Wish, now: float) -> TaskNote | None:
        """What an earlier run handed in for the same wish at the same gateway."""
        path = self.path(wish)
        try:
            note = None if path is None else TaskNote.parse(path.read_bytes(), path)
        except (OSError, WrongShapeError):
            return None
        if note is None or (note.gateway, note.wish) != (self.gateway, wish.digest):
            return None
        return note if 0 <= now - note.at < USABLE_SECONDS else None

    def write(self, wish: Wish, request: str, task: str | None, now: float) -> None:
        """Before it is handed in, and with its task before anything is waited for. Raises OSError."""
        path = self.path(wish)
        if path is not None:
            note = TaskNote(
                schema="sn17.generate/v1",
                gateway=self.gateway,
                task=task,
                request=request,
                wish=wish.digest,
                at=now,
            )
            write_atomically(path, note.to_json())

    def remove(self, wish: Wish) -> None:
        """The task is over."""
        path = self.path(wish)
        if path is not None:
            path.unlink(missing_ok=True)
