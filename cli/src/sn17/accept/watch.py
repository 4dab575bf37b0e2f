"""The verdict over many submissions, from the miner's own books. The counting is pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sn17_contract.tasks import Outcome, TaskView

from sn17.accept.verdict import Check, Grade

TARGETS: Final = (0.45, 0.55, 0.58)
"""The design's marks for the share of accepted tasks: least, expected, good."""


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


def tally(tasks: Iterable[TaskView], since: float) -> Tally:
    """Tasks pulled since then that have ended; what is still under way counts for nothing yet."""
    ended = [t for t in tasks if t.pulled_at >= since and t.outcome is not None]
    return Tally(len(ended), Counter(t.outcome for t in ended if t.outcome is not None))


def judge(counted: Tally, targets: Sequence[float] = TARGETS) -> list[Check]:
    """Success and yield against the targets: below the least FAIL, below the expected WARN."""
    least, expected, good = targets
    wanted = f"{least:.0%} least, {expected:.0%} expected, {good:.0%} good"
    checks = []
    for name, share in (("success", counted.success), ("yield", counted.yield_)):
        if share is None:
            checks.append(Check(name, "-", wanted, Grade.FAIL, "no task has ended"))
            continue
        grade = Grade.FAIL if share < least else Grade.WARN if share < expected else Grade.PASS
        text = "good" if share >= good else ""
        checks.append(Check(name, f"{share:.1%}", wanted, grade, text))
    return checks
