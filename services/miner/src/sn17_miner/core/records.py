"""What the journal remembers, as values."""

from __future__ import annotations

from dataclasses import dataclass

from sn17_contract.tasks import AttemptState, TaskState


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
    signal: str | None = None
    """Which class of evidence the quality gate put the result in."""
    confidence: float | None = None
    """The gate's estimate that the validator accepts it."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One task of one validator. ``n`` is the journal's own number; times are Unix seconds, our clock."""

    n: int
    task_id: str
    validator: str
    kind: str
    prompt: str
    sent_prompt: str | None
    """What the worker gets, when it is not the prompt itself."""
    enhancement: str
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
    skip: str | None = None
    """Why an empty result is handed in, ``outcome`` or ``outcome/reason``; None for a real one."""
    outcome: str | None = None
    reason: str | None = None
    score: float | None = None
    finished_at: float | None = None
    attempts: tuple[Attempt, ...] = ()

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

    @property
    def rounds(self) -> int:
        """Seeds whose generation came to an end of its own: a result, or an answer that a seed failed."""
        over = (AttemptState.GENERATED, AttemptState.FIXED)
        ended = {a.round for a in self.attempts if a.state in over or (a.error or "").startswith("seed:")}
        return len(ended)

    @property
    def log_id(self) -> str:
        """For logs: never a whole prompt, never an image."""
        if self.kind != "text":
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
