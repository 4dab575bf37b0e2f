"""The verdict over many submissions, from the miner's own journal. The counting is pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sn17_contract.tasks import VALIDATORS, Outcome, TaskView

from sn17.accept.targets import SuccessTargets, Targets
from sn17.accept.verdict import Check, Grade

ENOUGH: Final = 5
"""Ended tasks from which a single validator is judged."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Success and yield of the tasks that ended."""

    pulled: int
    outcomes: Counter[Outcome]

    @property
    def submissions(self) -> int:
        """Tasks that a validator judged."""
        return self.outcomes[Outcome.ACCEPTED] + self.outcomes[Outcome.REJECTED]

    @property
    def success(self) -> float | None:
        """accepted / (all that ended but the skipped ones)"""
        judged = sum(self.outcomes.values()) - self.outcomes[Outcome.SKIPPED]
        return self.outcomes[Outcome.ACCEPTED] / judged if judged else None

    @property
    def yield_(self) -> float | None:
        """accepted / pulled, of tasks that ended."""
        return self.outcomes[Outcome.ACCEPTED] / self.pulled if self.pulled else None


@dataclass(frozen=True, slots=True)
class Validator:
    """Whose tasks are counted."""

    hotkey: str
    uid: int | None

    def __str__(self) -> str:
        return f"uid {'?' if self.uid is None else self.uid} ({self.hotkey[:8]})"


def tally(tasks: Iterable[TaskView], since: float) -> Tally:
    """Validators' tasks pulled since then that have ended; what is under way counts for nothing yet."""
    ended = [t for t in _of_validators(tasks) if t.pulled_at >= since and t.outcome is not None]
    return Tally(len(ended), Counter(t.outcome for t in ended if t.outcome is not None))


def by_validator(tasks: Sequence[TaskView], since: float) -> dict[Validator, Tally]:
    """The same for each validator, by uid. The newest uid of a hotkey counts."""
    newest = {task.validator: task.uid for task in sorted(_of_validators(tasks), key=lambda t: t.n)}
    order = sorted(newest.items(), key=lambda item: (item[1] is None, item[1] or 0, item[0]))
    return {
        Validator(hotkey, uid): tally((t for t in tasks if t.validator == hotkey), since)
        for hotkey, uid in order
    }


def _of_validators(tasks: Iterable[TaskView]) -> list[TaskView]:
    """Gateways' tasks are not judged on quality: counting them would hide what validators say."""
    return [task for task in tasks if task.door == VALIDATORS]


def judge(
    counted: Tally, each: dict[Validator, Tally] | None = None, targets: SuccessTargets = SuccessTargets()
) -> list[Check]:
    """Success and yield against the targets: below the least FAIL, below the expected WARN.

    First of all tasks together, then of each validator; one with targets of its own that gave no task fails.
    """
    checks = _judge("", counted, targets.all)
    seen = set()
    for validator, own in (each or {}).items():
        name = targets.named(validator.hotkey, validator.uid)
        seen.add(name)
        own_targets = targets.of(validator.hotkey, validator.uid)
        checks += _judge(f", {validator}", own, own_targets, enough=ENOUGH)
    for missing in targets.validators.keys() - seen:
        wanted = _wanted(targets.validators[missing])
        checks.append(Check(f"success, {missing}", "-", wanted, Grade.FAIL, "it gave no task"))
    return checks


def _judge(of: str, counted: Tally, targets: Targets, *, enough: int = 1) -> list[Check]:
    checks = []
    for name, share in (("success", counted.success), ("yield", counted.yield_)):
        if share is None:
            checks.append(Check(name + of, "-", _wanted(targets), Grade.FAIL, "no task has ended"))
            continue
        grade = (
            Grade.FAIL if share < targets.least else Grade.WARN if share < targets.expected else Grade.PASS
        )
        text = f"{counted.pulled} tasks"
        if counted.pulled < enough:
            grade, text = Grade.WARN, f"only {text}: too few to judge"
        checks.append(Check(name + of, f"{share:.1%}", _wanted(targets), grade, text))
    return checks


def _grade(share: float, targets: Targets) -> Grade:
    if share < targets.least:
        return Grade.FAIL
    return Grade.WARN if share < targets.expected else Grade.PASS


def _wanted(targets: Targets) -> str:
    good = "" if targets.good is None else f", {targets.good:.0%} good"
    return f"{targets.least:.0%} least, {targets.expected:.0%} expected{good}"
