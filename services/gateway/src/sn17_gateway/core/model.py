"""Tasks, deliveries and results as values. Times are unix seconds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

#: ``free_at`` of a task whose slots are all used.
NEVER: Final = math.inf


class Outcome(StrEnum):
    """How a delivery ended; an open one whose lease is over counts as given back."""

    OPEN = "open"
    SUCCESS = "success"
    FAILURE = "failure"


class State(StrEnum):
    """What a client is told about a task."""

    NO_RESULT = "NoResult"
    IN_PROGRESS = "InProgress"
    PARTIAL = "PartialResult"
    SUCCESS = "Success"
    FAILURE = "Failure"


@dataclass(frozen=True, slots=True)
class Asset:
    """A result's file in the folder, its size in bytes and the SHA-256 of its content (hex)."""

    file: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Named:
    """A request with the name that its owner gave it; ``digest`` is the same for the same wish."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Worker:
    """Who asks for tasks. A hotkey without tags sees tasks without tags only."""

    hotkey: str
    worker_id: str
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Delivery:
    """One hand-out of a task. ``number`` orders the finished ones of a task by arrival, from 1."""

    token: str
    hotkey: str
    worker_id: str
    given_at: float
    lease_until: float
    outcome: Outcome = Outcome.OPEN
    finished_at: float | None = None
    number: int | None = None
    reason: str | None = None
    asset: Asset | None = None

    @property
    def finished(self) -> bool:
        return self.outcome is not Outcome.OPEN

    def live(self, now: float) -> bool:
        """Whether the worker still holds the task."""
        return not self.finished and now < self.lease_until


@dataclass(frozen=True, slots=True)
class Task:
    """What a client asked for. Exactly one of ``prompt`` and ``image`` (a file in the folder) is there.

    ``owner`` is the id of a key, None for guests; ``params`` is JSON text that workers get unchanged.
    """

    id: str
    model: str
    prompt: str | None
    image: str | None
    seed: int
    params: str | None
    tags: frozenset[str]
    owner: str | None
    address: str
    origin: str
    slots: int
    created_at: float
    expires_at: float
    deliveries: tuple[Delivery, ...] = ()

    def replace_delivery(self, changed: Delivery) -> Self:
        """A copy in which the delivery with the same token is exchanged."""
        deliveries = tuple(changed if item.token == changed.token else item for item in self.deliveries)
        return dataclasses.replace(self, deliveries=deliveries)

    @property
    def finished(self) -> tuple[Delivery, ...]:
        """Deliveries that ended, by arrival."""
        return tuple(sorted((d for d in self.deliveries if d.finished), key=lambda d: d.number or 0))

    @property
    def successes(self) -> tuple[Delivery, ...]:
        return tuple(d for d in self.finished if d.outcome is Outcome.SUCCESS)

    @property
    def complete(self) -> bool:
        """Every slot is used by a result; deliveries that are still open are no longer needed."""
        return len(self.finished) >= self.slots
