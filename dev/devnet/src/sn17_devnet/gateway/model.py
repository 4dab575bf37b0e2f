"""Tasks as the nodes and the shared database know them. Times are unix seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sn17_contract.gateway import KeyKind

TIMED_OUT: Final = "Task timed out"
"""The reason that a node's memory gives for a task whose life is over."""
DEADLINE: Final = "Gateway task deadline exceeded."
"""The same, as the database gives it after a restart."""


class State(StrEnum):
    NO_RESULT = "NoResult"
    IN_PROGRESS = "InProgress"
    PARTIAL = "PartialResult"
    SUCCESS = "Success"
    FAILURE = "Failure"


@dataclass(frozen=True, slots=True)
class Status:
    """The answer of ``get_status``; ``text`` holds the number of successes where it is partial."""

    text: str
    worker_id: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ClientKey:
    """``text`` is None for guests, whose tasks have no owner. 0 is no limit."""

    text: str | None
    kind: KeyKind
    concurrent: int
    daily: int
    daily_by_address: int = 0
    tags: frozenset[str] = frozenset()


@dataclass(slots=True)
class Delivery:
    """One hand-out. ``success`` is None while it is open."""

    token: str
    hotkey: str
    worker_id: str
    success: bool | None = None
    reason: str | None = None


@dataclass(slots=True)
class Record:
    """What the database keeps of a task: no prompt, no asset. ``end`` is set once and for all."""

    id: str
    node: int
    owner: str | None
    kind: KeyKind
    address: str
    slots: int
    created_at: float
    expires_at: float
    deliveries: list[Delivery] = field(default_factory=list)
    finished: list[Delivery] = field(default_factory=list)
    """By arrival."""
    end: Status | None = None
    ended_at: float | None = None

    @property
    def complete(self) -> bool:
        """Every slot is used and nobody holds the task."""
        return len(self.finished) >= self.slots and all(d.success is not None for d in self.deliveries)

    @property
    def successes(self) -> list[Delivery]:
        return [delivery for delivery in self.finished if delivery.success]

    def status(self) -> Status:
        """What the database says."""
        if self.end is not None:
            return self.end
        if self.finished:
            return partial(len(self.successes))
        return Status(State.IN_PROGRESS if self.deliveries else State.NO_RESULT)


@dataclass(frozen=True, slots=True)
class Result:
    """What a node keeps of a finished delivery; ``asset`` is None for a failure."""

    worker_id: str
    asset: bytes | None
    reason: str | None
    at: float


@dataclass(slots=True)
class Context:
    """A task in the memory of the node that took it. Exactly one of ``prompt`` and ``image`` is there."""

    record: Record
    model: str
    prompt: str | None
    image: bytes | None
    seed: int
    params: str | None
    tags: frozenset[str]


def partial(successes: int) -> Status:
    return Status(f"{State.PARTIAL}({successes})")


def ended(results: Sequence[Result]) -> Status:
    """The end that these results give: the first success, else the last failure's reason."""
    for result in results:
        if result.asset is not None:
            return Status(State.SUCCESS, worker_id=result.worker_id)
    return Status(State.FAILURE, reason=results[-1].reason if results else TIMED_OUT)
