"""What is remembered of a release on a cluster between two looks at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sn17_chaos.history import DROPPED, OPEN, Assigned
from sn17_chaos.looks import Look, handed_out


@dataclass(slots=True)
class PodLook(Look):
    """What a worker said of itself last, and since when it is out of service in the API's eyes."""

    away_since: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a trial starts."""

    at: float
    acts: int
    recycles: int
    oom_kills: int


@dataclass(slots=True)
class Ledgers:
    """The validators' ledgers: the referee's view. A killed process forgets its ledger: what was open then is
    dropped, what was closed is remembered here."""

    _tasks: dict[tuple[str, str], Assigned] = field(default_factory=dict)

    def read(self, ledger: Mapping[str, Any]) -> list[Assigned]:
        """All tasks ever told of, with these as the news."""
        told = {(task.validator, task.task_id): task for task in handed_out(ledger)}
        for key, known in list(self._tasks.items()):
            if known.outcome == OPEN and key not in told:
                self._tasks[key] = replace(known, outcome=DROPPED)
        self._tasks |= told
        return list(self._tasks.values())
