"""What ``sn17 replay`` reports: what the operator would have done over recorded metrics."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid")


class ReplayedAction(_Report):
    """An act that would have started. ``at`` is RFC 3339; ``act`` the first thing done.

    ``spared_seconds`` of a worker the recording lost after it, ``spent_seconds`` the act would have taken.
    """

    at: str
    worker: str
    boot_id: str | None
    life_id: str | None
    rule: str
    act: str
    message: str
    spared_seconds: float
    spent_seconds: float


class ReplayReport(_Report):
    """One pass over a recording by one spec.

    ``verdicts`` and ``held_back`` count ticks of workers, ``short_circuits`` the times at which too many
    workers had quality verdicts at once. On a recording of healthy workers ``actions_per_worker_and_day``
    are the false alarms. ``lost_seconds``: worker seconds that the actions would have taken from jobs, if
    jobs were waiting all the time.
    """

    spec: str
    start: str
    end: str
    workers: int
    ticks: int
    actions: tuple[ReplayedAction, ...]
    actions_per_worker_and_day: dict[str, float]
    verdicts: dict[str, int]
    held_back: dict[str, int]
    short_circuits: int
    lost_seconds: float


class ReplayAnswer(_Report):
    """``sn17 replay --json``: a report for each spec, over the same recording."""

    reports: tuple[ReplayReport, ...]
