"""What the journal remembers, as values."""

from __future__ import annotations

from dataclasses import dataclass

from sn17_contract.tasks import (
    VALIDATORS,
    AttemptState,
    Enhancement,
    Failure,
    GivenUpReason,
    Lane,
    Outcome,
    Signal,
    TaskKind,
    TaskState,
)


@dataclass(frozen=True, slots=True)
class ResultSignal:
    """The class of evidence of a result; ``score`` (0 to 1, rounded down to a step) only for ``SCORE``."""

    kind: Signal
    score: float | None = None

    @property
    def key(self) -> str:
        """The name under which the quality gate counts this class."""
        return self.kind.value if self.score is None else f"{self.kind.value}:{self.score:.2f}"

    @classmethod
    def of(cls, key: str) -> ResultSignal:
        """From the gate's name for it."""
        kind, _, score = key.partition(":")
        return cls(Signal(kind), float(score) if score else None)


@dataclass(frozen=True, slots=True)
class Skip:
    """Why an empty result is handed in."""

    outcome: Outcome
    reason: GivenUpReason | None = None

    def __str__(self) -> str:
        return self.outcome.value if self.reason is None else f"{self.outcome.value}: {self.reason.value}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One generation: ``key`` names it to the worker, ``ply`` and ``spz`` are names in the spool."""

    task: int
    number: int
    key: str
    worker: str
    boot_id: str
    seed: int
    round: int
    """Which seed of the task this is, from 0; a move to another worker keeps it."""
    state: AttemptState
    started_at: float
    finished_at: float | None = None
    ply: str | None = None
    spz: str | None = None
    report: str | None = None
    signal: ResultSignal | None = None
    """Which class of evidence the quality gate put the result in."""
    confidence: float | None = None
    """The gate's estimate that the validator accepts it."""
    failure: Failure | None = None
    error: str | None = None
    enhanced: bool = False
    """Whether the worker got the enhanced prompt."""
    lane: Lane = Lane.EXACT
    """What the worker was asked for, and after the generation what it says it did."""

    @property
    def worker_failed(self) -> bool:
        """Whether the generation was lost on a worker, through no fault of prompt or seed."""
        return self.failure in (Failure.LOST, Failure.BROKEN)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a result of a gateway's task must carry, and where it goes: always to the node it came from."""

    node: str
    """Base URL."""
    token: str
    worker_id: str
    model: str
    seed: int
    """32 bits, signed, as the gateway gave it."""
    expires_at: float
    """Unix seconds, our clock: the latest end of the task's life, which began before the pull."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task of one door. ``n`` is the journal's own number; times are Unix seconds, our clock.

    ``validator`` is a hotkey, empty for a gateway's task, which has an ``assignment``.
    """

    n: int
    task_id: str
    validator: str
    kind: TaskKind
    prompt: str
    sent_prompt: str | None
    """What the worker gets, when it is not the prompt itself."""
    enhancement: Enhancement
    threshold: float
    throttle: float
    assigned_at: float
    pulled_at: float
    idle: float | None
    """Seconds from the end of the cooldown before it to the pull, while a worker was free."""
    state: TaskState
    submits: int = 0
    submitted_attempt: int | None = None
    submit_time: int | None = None
    """Nanoseconds of the last submission, as it was signed."""
    skip: Skip | None = None
    """None for a real result."""
    outcome: Outcome | None = None
    reason: GivenUpReason | None = None
    score: float | None = None
    finished_at: float | None = None
    door: str = VALIDATORS
    assignment: Assignment | None = None
    attempts: tuple[Attempt, ...] = ()

    @property
    def no_fast_lane(self) -> bool:
        """Whether a worker has refused it for this task."""
        return any(attempt.failure is Failure.LANE for attempt in self.attempts)

    @property
    def running(self) -> Attempt | None:
        """The generation that is, or was when we stopped, on a worker."""
        return self._last(AttemptState.RUNNING)

    @property
    def unfixed(self) -> Attempt | None:
        """The generation whose result has not been to the fixer."""
        return self._last(AttemptState.GENERATED)

    @property
    def best(self) -> Attempt | None:
        """The result most likely to be accepted."""
        fixed = [attempt for attempt in self.attempts if attempt.state is AttemptState.FIXED]
        return max(fixed, key=lambda attempt: (attempt.confidence or 0.0, -attempt.number), default=None)

    def enhanced_next(self, max_seeds: int) -> bool:
        """Whether the next generation gets the enhanced prompt: not once a worker refused it, and not for the
        last of several seeds, so that a task is never given up for a text of our own.
        """
        refused = any(a.enhanced and a.failure is Failure.PROMPT for a in self.attempts)
        last = max_seeds > 1 and self.rounds >= max_seeds - 1
        return self.sent_prompt is not None and not refused and not last

    @property
    def lost(self) -> int:
        """Generations that were lost on workers."""
        return sum(attempt.worker_failed for attempt in self.attempts)

    @property
    def rounds(self) -> int:
        """Seeds whose generation came to an end of its own: a result, or an answer that a seed failed."""
        over = (AttemptState.GENERATED, AttemptState.FIXED)
        ended = {a.round for a in self.attempts if a.state in over or a.failure is Failure.SEED}
        return len(ended)

    @property
    def log_id(self) -> str:
        """For logs: never a whole prompt, never an image."""
        if self.kind is not TaskKind.TEXT:
            return f"image:{self.task_id[:36]}"
        return self.prompt if len(self.prompt) <= 100 else self.prompt[:97] + "..."

    def _last(self, state: AttemptState) -> Attempt | None:
        return next((attempt for attempt in reversed(self.attempts) if attempt.state is state), None)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a task's story: what happened or was decided, and why."""

    task: int
    at: float
    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class ValidatorRecord:
    """What must survive a restart about a validator. ``cooldown_until`` by its own clock, 0 for none."""

    hotkey: str
    uid: int
    ip: str
    port: int
    stake: float
    cooldown_until: float
    learned: str
