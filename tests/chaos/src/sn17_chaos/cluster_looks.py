"""What is remembered of a release on a cluster between two looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sn17_chaos.history import DROPPED, OPEN, Assigned


@dataclass(slots=True)
class Look:
    """What a worker said of itself last, and since when it is out of service in the API's eyes."""

    boot_id: str = ""
    state: str = "starting"
    job: str | None = None
    at: float = 0.0
    away_since: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a trial starts."""

    at: float
    acts: int
    recycles: int
    oom_kills: int


@dataclass(slots=True)
class Books:
    """The validators' books: the referee's view. Their process forgets its books when it is killed: what was
    open then is dropped, what was closed is remembered here."""

    _tasks: dict[tuple[str, str], Assigned] = field(default_factory=dict)

    def read(self, books: Mapping[str, Any]) -> list[Assigned]:
        """All tasks ever told of, with these as the news."""
        told = {(v["hotkey"], task["task_id"]) for v in books["validators"] for task in v["tasks"]}
        for key, known in list(self._tasks.items()):
            if known.outcome == OPEN and key not in told:
                self._tasks[key] = replace(known, outcome=DROPPED)
        for validator in books["validators"]:
            for task in validator["tasks"]:
                entry = Assigned(
                    task["task_id"],
                    validator["hotkey"],
                    task["assigned_at"],
                    task["outcome"],
                    task["closed_at"],
                )
                self._tasks[entry.validator, entry.task_id] = entry
        return list(self._tasks.values())
