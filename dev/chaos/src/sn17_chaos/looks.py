"""What a world remembers between two looks at its workers and at the validators' ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sn17_chaos.history import Assigned, Span


@dataclass(slots=True)
class Position:
    """Where a trial starts: what lies before it is no part of its history."""

    at: float
    acts: int
    recycles: int
    completed: int


@dataclass(slots=True)
class Look:
    """What a worker said of itself last."""

    boot_id: str = ""
    state: str = "starting"
    job: str | None = None
    at: float = 0.0

    def heard(self, said: Mapping[str, Any], at: float) -> None:
        """Take down an answer of ``GET /v1/worker``."""
        self.boot_id, self.state, self.at = said["boot_id"], said["state"], at
        self.job = said["job"]["key"] if said["job"] else None


def handed_out(ledger: Mapping[str, Any]) -> list[Assigned]:
    """Every task in the validators' ledgers."""
    return [
        Assigned(
            task["task_id"], validator["hotkey"], task["assigned_at"], task["outcome"], task["closed_at"]
        )
        for validator in ledger["validators"]
        for task in validator["tasks"]
    ]


def seen(spans: list[Span], now: float, gap: float) -> None:
    """Something holds now: the last stretch goes on, or another begins where it ended ``gap`` seconds ago."""
    if spans and now - spans[-1].end < gap:
        spans[-1] = Span(spans[-1].start, now)
    else:
        spans.append(Span(now, now))
