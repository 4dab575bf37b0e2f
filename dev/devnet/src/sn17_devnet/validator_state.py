"""What one validator remembers of its miners, and what it answers them. Pure: a clock comes in, values go
out.

Every rule is the real validator's, odd ones included; ``docs/protocol.md`` lists where this one differs. A
submission is settled in two steps, since validation takes time in which the miner may pull or submit again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sn17_contract.tasks import Outcome
from sn17_protocol import Feedback, ImageTask, TextTask

from sn17_devnet.ledger import Ledger
from sn17_devnet.tasks import SceneTask

START_RATING: Final = 1500.0
"""Glicko rating of a miner who never had a duel. There are no duels here."""


@dataclass(frozen=True, slots=True)
class Rules:
    """A validator's constants; times in seconds."""

    task_cooldown: float = 300.0
    throttle_period: float = 30.0
    cooldown_penalty: float = 600.0
    violations_threshold: int = 100
    violation_penalty: float = 10.0
    quality_threshold: float = 0.6
    validation_lock: float = 30.0
    fidelity_weight: float = 0.05
    reward_window: float = 4 * 3600.0
    unregistered_wait: float = 3600.0
    sync_interval: float = 600.0
    repeat_slack: float = 0.0
    """How much earlier than the rule says an accepted miner's next result is taken for a new one.

    Cooldowns are told in whole seconds, so a miner may come back up to a second early. At true speed nobody
    can generate in that second; in fast motion everybody does.
    """

    def scaled(self, factor: float) -> Rules:
        """The same rules with every time multiplied by ``factor``."""
        times = (
            "task_cooldown",
            "throttle_period",
            "cooldown_penalty",
            "violation_penalty",
            "validation_lock",
            "reward_window",
            "unregistered_wait",
            "sync_interval",
        )
        scaled: dict[str, Any] = {name: getattr(self, name) * factor for name in times}
        return replace(self, **scaled, repeat_slack=max(0.0, 1.0 - factor))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A task that one miner holds."""

    scene_task: SceneTask
    assigned_at: float
    serial: int

    @property
    def task(self) -> TextTask | ImageTask:
        return self.scene_task.task


@dataclass(frozen=True, slots=True)
class PullAnswer:
    """``task`` is None while the miner has to wait until ``cooldown_until``."""

    task: TextTask | ImageTask | None
    cooldown_until: int = 0
    violations: int = 0


@dataclass(frozen=True, slots=True)
class SubmitAnswer:
    feedback: Feedback
    cooldown_until: int


@dataclass(frozen=True, slots=True)
class Validation:
    """A submission that went to the validation service and has to be settled with its verdict."""

    uid: int
    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the validation service said: a score from 0 up, or that it could not say."""

    score: float = 0.0
    failed: bool = False
    reason: str = ""


@dataclass(slots=True)
class _Miner:
    hotkey: str
    assignment: Assignment | None = None
    cooldown_until: int = 0
    violations: int = 0
    fidelity: float = 1.0
    accepted_at: deque[float] = field(default_factory=deque)
    last_accepted: float = float("-inf")
    last_attempt: float = float("-inf")

    def forget(self, hotkey: str) -> None:
        """The uid changed hands. What was assigned stays with the uid: so the real validator has it."""
        self.hotkey = hotkey
        self.cooldown_until = 0
        self.violations = 0
        self.fidelity = 1.0
        self.accepted_at.clear()
        self.last_accepted = float("-inf")


class UnknownMinerError(LookupError):
    """The body of a submission names a hotkey that is not registered."""


class ValidatorState:
    """One validator's state.

    Args:
        rules: constants, already scaled.
        clock: seconds since the epoch.
        next_task: makes a task; called only when a miner is owed one.
        ledger: the referee's record of every task, which outlives restarts of the validator.
    """

    def __init__(
        self, rules: Rules, clock: Callable[[], float], next_task: Callable[[], SceneTask], ledger: Ledger
    ) -> None:
        self.rules = rules
        self._clock = clock
        self._next_task = next_task
        self._ledger = ledger
        self._miners: dict[int, _Miner] = {}
        self._uids: dict[str, int] = {}

    def sync(self, metagraph: Mapping[int, str]) -> None:
        """Read who is registered; happens every ``sync_interval`` only, so newcomers wait."""
        self._uids = {hotkey: uid for uid, hotkey in metagraph.items()}
        for uid, hotkey in metagraph.items():
            miner = self._miners.setdefault(uid, _Miner(hotkey))
            if miner.hotkey != hotkey:
                miner.forget(hotkey)

    def pull(self, hotkey: str | None) -> PullAnswer:
        """Answer a pull in the name of ``hotkey`` (whoever really sent it)."""
        now = self._clock()
        miner = self._find(hotkey)
        if miner is None:
            return PullAnswer(None, cooldown_until=int(now + self.rules.unregistered_wait))
        if now < miner.cooldown_until:
            miner.violations += 1
            self._ledger.violation(miner.hotkey)
            if miner.violations > self.rules.violations_threshold:
                miner.cooldown_until += max(1, round(self.rules.violation_penalty))
            return PullAnswer(None, miner.cooldown_until, miner.violations)
        if miner.assignment is None:
            miner.assignment = self._assign(miner.hotkey, self._next_task(), now)
        else:
            self._ledger.reissued(miner.assignment.serial)
        return PullAnswer(miner.assignment.task)

    def refusal(self, hotkey: str | None) -> str | None:
        """Why a submission by ``hotkey`` (of the headers) is turned away before it is read, or None."""
        miner = self._find(hotkey)
        if miner is None:
            return f"{hotkey} is not registered"
        if miner.assignment is None:
            return f"{hotkey} submitted results while having no task assigned"
        return None

    def submit(
        self, hotkey: str | None, task_id: str, *, empty: bool, verify: Callable[[str], bool]
    ) -> SubmitAnswer | Validation:
        """Take a submission in the name of ``hotkey`` (of the body).

        ``verify`` checks the signature against the prompt of the assigned task; what it raises goes through
        and changes nothing.

        Raises:
            UnknownMinerError: ``hotkey`` is not registered.
        """
        miner = self._find(hotkey)
        if miner is None:
            raise UnknownMinerError(str(hotkey))
        assignment = miner.assignment
        if assignment is None or assignment.task.id != task_id:
            return self._unchanged(miner)
        if not verify(assignment.task.prompt):
            return self._close(
                miner, assignment, Outcome.REJECTED, "signature", penalty=self.rules.cooldown_penalty
            )
        miner.violations -= 1
        if empty:
            return self._close(miner, assignment, Outcome.SKIPPED, "empty result")
        now = self._clock()
        if now - miner.last_attempt < self.rules.validation_lock:
            self._ledger.locked(assignment.serial)
            return self._unchanged(miner)
        miner.last_attempt = now
        return Validation(self._uids[miner.hotkey], assignment)

    def settle(self, validation: Validation, verdict: Verdict) -> SubmitAnswer:
        """Book the verdict of a validation and answer the submission."""
        miner = self._miners[validation.uid]
        now = self._clock()
        repeat_window = self.rules.task_cooldown - self.rules.throttle_period - self.rules.repeat_slack
        if now - miner.last_accepted < repeat_window:
            return self._unchanged(miner)
        assignment = validation.assignment
        if verdict.failed:
            return self._close(miner, assignment, Outcome.UNVALIDATED, verdict.reason, failed=True)
        if verdict.score < self.rules.quality_threshold:
            return self._close(
                miner,
                assignment,
                Outcome.REJECTED,
                verdict.reason or "quality",
                penalty=self.rules.cooldown_penalty,
                judged=verdict.score,
            )
        score = min(1.0, verdict.score)
        weight = self.rules.fidelity_weight
        miner.fidelity = (1.0 - weight) * miner.fidelity + weight * score
        miner.accepted_at.append(now)
        miner.last_accepted = now
        return self._close(miner, assignment, Outcome.ACCEPTED, "", score=score, judged=score)

    def reward(self, hotkey: str) -> float:
        """Accepted results within the window times the rating: what a miner's weight is ranked by."""
        miner = self._find(hotkey)
        return 0.0 if miner is None else self._window(miner) * START_RATING

    def dump(self) -> dict[str, Any]:
        """The part that survives a restart."""
        return {
            "uids": self._uids,
            "miners": {
                uid: {
                    "hotkey": miner.hotkey,
                    "assignment": _dump_assignment(miner.assignment),
                    "cooldown_until": miner.cooldown_until,
                    "violations": miner.violations,
                    "fidelity": miner.fidelity,
                    "accepted_at": list(miner.accepted_at),
                    "last_accepted": None if miner.last_accepted < 0 else miner.last_accepted,
                }
                for uid, miner in self._miners.items()
            },
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a dumped state: what happened since is forgotten, as after a validator's restart."""
        self._uids = dict(state["uids"])
        self._miners = {int(uid): _load_miner(saved) for uid, saved in state["miners"].items()}
        held = {m.assignment.serial for m in self._miners.values() if m.assignment is not None}
        self._ledger.restarted(held, self._clock())
        for miner in self._miners.values():
            old = miner.assignment
            if old is not None and not self._ledger.is_open(old.serial):
                miner.assignment = self._assign(miner.hotkey, old.scene_task, old.assigned_at)

    def _assign(self, hotkey: str, scene_task: SceneTask, at: float) -> Assignment:
        return Assignment(scene_task, at, self._ledger.assigned(hotkey, scene_task, at))

    def _find(self, hotkey: str | None) -> _Miner | None:
        uid = self._uids.get(hotkey) if hotkey is not None else None
        return None if uid is None else self._miners[uid]

    def _window(self, miner: _Miner) -> int:
        oldest = self._clock() - self.rules.reward_window
        while miner.accepted_at and miner.accepted_at[0] < oldest:
            miner.accepted_at.popleft()
        return len(miner.accepted_at)

    def _feedback(self, miner: _Miner, *, score: float = 0.0, failed: bool = False) -> Feedback:
        accepted = self._window(miner)
        return Feedback(
            validation_failed=failed,
            task_fidelity_score=score,
            average_fidelity_score=miner.fidelity,
            generations_within_the_window=accepted,
            current_duel_rating=START_RATING,
            current_miner_reward=accepted * START_RATING,
        )

    def _unchanged(self, miner: _Miner) -> SubmitAnswer:
        return SubmitAnswer(self._feedback(miner), miner.cooldown_until)

    def _close(
        self,
        miner: _Miner,
        assignment: Assignment,
        outcome: Outcome,
        reason: str,
        *,
        penalty: float = 0.0,
        score: float = 0.0,
        judged: float | None = None,
        failed: bool = False,
    ) -> SubmitAnswer:
        """Take the task away (a newer one stays) and cool down; ``score`` is told, ``judged`` recorded."""
        now = self._clock()
        cooldown = self.rules.task_cooldown + penalty
        if miner.assignment is assignment:
            miner.assignment = None
        miner.cooldown_until = int(
            max(now + cooldown - self.rules.throttle_period, assignment.assigned_at + cooldown)
        )
        self._ledger.closed(assignment.serial, outcome, reason, judged, now)
        return SubmitAnswer(self._feedback(miner, score=score, failed=failed), miner.cooldown_until)


def _dump_assignment(assignment: Assignment | None) -> dict[str, Any] | None:
    if assignment is None:
        return None
    return {
        "task": assignment.task.model_dump(),
        "scene": assignment.scene_task.scene,
        "assigned_at": assignment.assigned_at,
        "serial": assignment.serial,
    }


def _load_miner(saved: Mapping[str, Any]) -> _Miner:
    held = saved["assignment"]
    assignment = None
    if held is not None:
        kind = ImageTask if held["task"]["type"] == "image" else TextTask
        scene_task = SceneTask(kind.model_validate(held["task"]), held["scene"])
        assignment = Assignment(scene_task, held["assigned_at"], held["serial"])
    last = saved["last_accepted"]
    return _Miner(
        hotkey=saved["hotkey"],
        assignment=assignment,
        cooldown_until=saved["cooldown_until"],
        violations=saved["violations"],
        fidelity=saved["fidelity"],
        accepted_at=deque(saved["accepted_at"]),
        last_accepted=float("-inf") if last is None else last,
    )
