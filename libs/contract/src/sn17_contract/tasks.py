"""Tasks: how far they are, how they end, and the answers of ``/v1/tasks`` and ``/v1/validators``."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from sn17_contract.worker import WorkerStatus

VALIDATORS: Final = "validators"
"""The door of validators' tasks. Every other door is a gateway by the name that the settings give it."""


class Lane(StrEnum):
    """How a worker samples: everything, or without what the checkpoint's calibration lets it leave out."""

    EXACT = "exact"
    FAST = "fast"


class TaskKind(StrEnum):
    """What the prompt is."""

    TEXT = "text"
    IMAGE = "image"


class TaskState(StrEnum):
    """How far a task has come. ``DONE`` has an outcome; every other is resumed after a restart."""

    PULLED = "pulled"
    GENERATING = "generating"
    GENERATED = "generated"
    FIXED = "fixed"
    SUBMITTING = "submitting"
    DONE = "done"


class AttemptState(StrEnum):
    """How far one generation has come."""

    RUNNING = "running"
    GENERATED = "generated"
    FIXED = "fixed"
    FAILED = "failed"


class Failure(StrEnum):
    """Why a generation led nowhere."""

    LOST = "lost"
    """Its worker went away or made no progress, or the result disappeared from the disk."""
    BROKEN = "broken"
    """The worker answered with an error of its own, or with what is no splat."""
    REFUSED = "refused"
    """The worker did not take it."""
    SEED = "seed"
    """This seed gives nothing; another may."""
    PROMPT = "prompt"
    """No worker will ever take this prompt."""
    LANE = "lane"
    """The worker has no fast lane for this task; the exact one follows."""


class Signal(StrEnum):
    """The class of evidence of a result. ``score``: a validation service's score stands beside it."""

    HEALTHY = "healthy"
    REPAIRED = "repaired"
    FAILS_CHECKS = "fails_checks"
    UNREPAIRABLE = "unrepairable"
    SCORE = "score"


class Enhancement(StrEnum):
    """What the worker gets in place of the prompt."""

    NONE = "none"
    TEXT = "text"
    IMAGE = "image"


class Outcome(StrEnum):
    """How a task ended. Success = accepted / (all but skipped); yield = accepted / pulled."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNVALIDATED = "unvalidated"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    GIVEN_UP = "given_up"


class GivenUpReason(StrEnum):
    """Every reason for ``given_up``."""

    BAD_PROMPT = "bad_prompt"
    EMPTY_STRUCTURE = "empty_structure"
    NO_WORKER = "no_worker"
    GENERATION_FAILED = "generation_failed"
    UNREPAIRABLE = "unrepairable"
    VALIDATOR_DROPPED = "validator_dropped"
    VALIDATOR_UNREACHABLE = "validator_unreachable"
    REFUSED_BY_VALIDATOR = "refused_by_validator"
    ANSWER_LOST = "answer_lost"
    FIXER_UNAVAILABLE = "fixer_unavailable"
    TASK_OVER = "task_over"
    """The gateway has the task complete, timed out or forgotten."""
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    REFUSED_BY_GATEWAY = "refused_by_gateway"


class Shape(BaseModel):
    """A part of an answer. Fields that a newer miner adds are ignored; none that it lacks is made up."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class AttemptView(Shape):
    """One generation; Unix seconds. ``score`` belongs to the signal of the same name, 0 to 1."""

    key: str
    worker: str
    seed: int
    state: AttemptState
    started_at: float
    finished_at: float | None
    signal: Signal | None
    score: float | None
    confidence: float | None
    failure: Failure | None
    error: str | None
    lane: Lane = Lane.EXACT


class EventView(Shape):
    """One line of a task's story; Unix seconds."""

    at: float
    event: str
    detail: str


class TaskView(Shape):
    """A task as people see it; never a whole image. Unix seconds.

    ``validator`` is the hotkey, ``uid`` its number on the subnet where it is still known; a gateway's task
    has neither, and ``door`` names the gateway. ``events`` is None in a list and the whole story in the
    answer for one task.
    """

    n: int
    task_id: str
    validator: str
    uid: int | None
    kind: TaskKind
    prompt: str
    enhancement: Enhancement
    state: TaskState
    outcome: Outcome | None
    reason: GivenUpReason | None
    score: float | None
    pulled_at: float
    finished_at: float | None
    submits: int
    attempts: tuple[AttemptView, ...]
    events: tuple[EventView, ...] | None
    door: str = VALIDATORS
    kept: bool = False
    """Whether the submitted asset can still be fetched."""


class Tally(Shape):
    """Tasks that ended. Success leaves skipped ones out, yield does not: shown side by side, so that skipping
    does not look like winning. Shares are 0 to 1, None where nothing ended.
    """

    ended: int
    outcomes: dict[Outcome, int]
    reasons: dict[GivenUpReason, int]
    success: float | None
    yield_: float | None = Field(alias="yield")
    in_time: float | None
    """Share of judged results that were delivered within the free window."""


class ValidatorTally(Tally):
    """The tasks of one validator."""

    validator: str
    uid: int | None


class DoorTally(Tally):
    """The tasks of one gateway: accepted are results that it has stored."""

    door: str


class Window(Tally):
    """The last ``hours``, all validators together and one by one; gateways' tasks are counted apart."""

    hours: int
    validators: tuple[ValidatorTally, ...]
    gateways: tuple[DoorTally, ...] = ()


class TaskList(Shape):
    """``GET /v1/tasks``: the newest tasks; counts by state and windows are of the validators asked for."""

    tasks: tuple[TaskView, ...]
    counts: dict[TaskState, int]
    windows: tuple[Window, ...]


class Phase(StrEnum):
    """Where a validator stands."""

    READY = "ready"
    PULLING = "pulling"
    BUSY = "busy"
    """It has a task of ours; ``TaskState`` says how far that is."""
    COOLING = "cooling"
    RESTING = "resting"
    QUARANTINED = "quarantined"


class ValidatorView(Shape):
    """One validator: where it stands and what was learned. Seconds; ``next_pull`` Unix seconds."""

    hotkey: str
    uid: int
    address: str
    stake: float
    phase: Phase
    reason: str
    next_pull: float | None
    task_id: str | None
    failures: int
    throttle: float
    threshold: float
    base_cooldown: float
    penalty: float
    acceptance: float
    delivery: float | None
    clock_offset: float
    gate_break_even: float
    expected_per_hour: float
    """Accepted results, as the quality gate expects them."""


class WorkerView(Shape):
    """One worker as the miner sees it; ``reason`` says why it is not free."""

    url: str
    name: str
    state: str | None
    free: bool
    reason: str | None
    status: WorkerStatus | None = None
    """What the worker said of itself last."""


class NodePhase(StrEnum):
    """Where a node of a gateway stands."""

    READY = "ready"
    PULLING = "pulling"
    RESTING = "resting"


class NodeView(Shape):
    """One node of a gateway. ``next_pull`` Unix seconds; ``open_tasks`` are this miner's."""

    url: str
    phase: NodePhase
    reason: str
    next_pull: float | None
    failures: int
    open_tasks: int


class GatewayView(Shape):
    """One gateway as a source of work. ``weight`` is its share of workers against the other doors'."""

    door: str
    weight: float
    nodes: tuple[NodeView, ...]


class ValidatorList(Shape):
    """``GET /v1/validators``; ``not_pulling`` says why validators are not asked, None while they are."""

    validators: tuple[ValidatorView, ...]
    workers: tuple[WorkerView, ...]
    not_pulling: str | None
    gateways: tuple[GatewayView, ...] = ()
