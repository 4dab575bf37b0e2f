"""What happened around a fault, as values: the only thing the invariants look at.

Times are seconds of one clock, whichever the harness uses. Nothing here is the stack's own opinion where a
referee's is to be had: tasks come from the validators' ledgers, recycles from the workers' incarnations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OPEN = "open"
DROPPED = "dropped"
"""The validator forgot the task; outcomes are ``sn17_contract.Outcome`` otherwise."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """One task that a validator handed out, as its own ledger (the referee) have it."""

    task_id: str
    validator: str
    assigned_at: float
    outcome: str = OPEN
    closed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Journalled:
    """One task as the miner's journal has it; ``outcome`` None while it is under way."""

    task_id: str
    validator: str
    pulled_at: float
    outcome: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """A generation that a worker has finished for this idempotency key."""

    key: str
    worker: str


@dataclass(frozen=True, slots=True)
class Act:
    """An action that the operator has started, with the world as it was at that moment.

    unavailable: workers out of service, this one included once the action takes it out.
    acting: workers with an action under way, this one included.
    costs: the action takes a worker out of service that was in it.
    evidence_age: seconds since the operator was last told the truth by its metrics; None when not known.
    """

    at: float
    worker: str
    incarnation: str
    reason: str
    unavailable: int
    acting: int
    budget: int
    costs: bool = True
    evidence_age: float | None = None


@dataclass(frozen=True, slots=True)
class Recycle:
    """The operator has ended this incarnation, or asked for its end. ``cause``: what was wrong with it."""

    at: float
    worker: str
    incarnation: str
    cause: str | None


@dataclass(frozen=True, slots=True)
class MemorySample:
    """Unreclaimable memory of one life of a worker's container, as the kernel counts it.

    share: of the container's limit.
    """

    at: float
    worker: str
    incarnation: str
    share: float


@dataclass(frozen=True, slots=True)
class OomKill:
    """The kernel has killed this life of a worker's container, or a process in it, out of memory."""

    at: float
    worker: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, both ends included."""

    start: float
    end: float

    def holds(self, moment: float) -> bool:
        return self.start <= moment <= self.end


@dataclass(frozen=True, slots=True)
class History:
    """Everything around one fault (or one pair).

    usable: when at least one worker took work.
    evidence_limit: what ``Act.evidence_age`` may be at most: how old the data are that count as fresh.
    oom_kills: none where nobody limits the workers' memory.
    memory: all samples of the lives that were killed so.
    cordon_threshold: share of the limit from which on the operator takes a worker out of service.
    sight: seconds after which it has seen that, two scrapes and a tick.
    recovered: the stack was as before within the deadline; ``unrecovered`` says what was not.
    helped: what a person, or the harness in place of one, had to do beyond ending the fault.
    """

    assigned: Sequence[Assigned] = ()
    journalled: Sequence[Journalled] = ()
    completed: Sequence[Completed] = ()
    acts: Sequence[Act] = ()
    recycles: Sequence[Recycle] = ()
    usable: Sequence[Span] = ()
    evidence_limit: float = 0.0
    oom_kills: Sequence[OomKill] = ()
    memory: Sequence[MemorySample] = ()
    cordon_threshold: float = 1.0
    sight: float = 0.0
    recovered: bool = True
    unrecovered: str = ""
    helped: Sequence[str] = field(default=())
