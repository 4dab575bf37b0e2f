"""What of a status is worth writing, what turned since the last one, and times of the API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sn17_operator.status.resource import ConditionStatus, ConditionType, Status

NO_EVENTS = {
    "gaussians", "memory", "success", "yielded", "success_4h", "yielded_4h", "message", "last_storm_time",
    "conditions",
}  # fmt: skip
"""Fields that move without anything having happened; of the conditions only the messages do."""


def worth_writing(new: Status, old: Status, seconds_since: float, every: float = 30.0) -> bool:
    """True when something happened, or when only figures moved and the last write is long enough ago."""

    def happened(status: Status) -> object:
        conditions = [(c.type, c.status, c.reason, c.observed_generation) for c in status.conditions or ()]
        return status.model_dump(exclude=NO_EVENTS), conditions

    if new == old:
        return False
    return happened(new) != happened(old) or seconds_since >= every


@dataclass(frozen=True, slots=True)
class Flip:
    """A condition that turned."""

    reason: str
    message: str
    bad: bool


def flips(new: Status, old: Status) -> list[Flip]:
    """Conditions that turned since the written status ``old``, so that each is told once."""
    told = []
    for condition in new.conditions or ():
        before = old.condition(condition.type)
        turned = (
            before is None
            or before.status is not condition.status
            or (condition.bad and before.reason != condition.reason)
        )
        if condition.type is ConditionType.READY or not turned or (before is None and not condition.bad):
            continue
        if condition.status is ConditionStatus.UNKNOWN:
            continue
        text = f"{condition.type} is {condition.status}"
        text = f"{text}: {condition.message}" if condition.message else text
        told.append(Flip(condition.reason, text, condition.bad))
    return told


def parse_time(text: Any) -> float | None:
    """Unix seconds of an RFC 3339 time, None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
