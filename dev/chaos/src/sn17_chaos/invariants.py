"""What must hold after every fault. Pure: a history in, breaches out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from sn17_contract.tasks import GivenUpReason, Outcome

from sn17_chaos.history import DROPPED, Assigned, History, Journalled

SUBMITTED = frozenset({Outcome.ACCEPTED, Outcome.REJECTED, Outcome.UNVALIDATED})
"""Ends that only a non-empty submission has in the validators' ledgers."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that must not be: the invariant's name, what it is about, and why."""

    invariant: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.subject}: {self.detail}"


def tasks_lost(history: History) -> Iterator[str]:
    """Every task pulled while a worker was usable ended in a non-empty submission, unless the validator
    dropped it; the rest in one of the known reasons."""
    journal: dict[tuple[str, str], list[Journalled]] = defaultdict(list)
    for entry in history.journalled:
        journal[entry.validator, entry.task_id].append(entry)
    for task in history.assigned:
        if task.outcome in SUBMITTED or task.outcome == DROPPED:
            continue
        entries = journal[task.validator, task.task_id]
        if not entries:
            yield f"{task.task_id}: {task.outcome} in the ledger, unknown to the journal"
        elif all(entry.outcome is None for entry in entries):
            yield f"{task.task_id}: without an end"
        elif _pulled_while_usable(history, task, entries):
            ends = ", ".join(f"{e.outcome} {e.reason or ''}".strip() for e in entries)
            yield f"{task.task_id}: {ends}, though a worker was usable when it was pulled"
    for entry in history.journalled:
        if entry.outcome is not None and not _is_known(entry):
            yield f"{entry.task_id}: {entry.outcome}/{entry.reason} is no known end"


def _pulled_while_usable(history: History, task: Assigned, entries: list[Journalled]) -> bool:
    pulled = min((entry.pulled_at for entry in entries), default=task.assigned_at)
    return any(span.holds(pulled) for span in history.usable)


def _is_known(entry: Journalled) -> bool:
    if entry.outcome not in set(Outcome):
        return False
    return entry.outcome != Outcome.GIVEN_UP or entry.reason in set(GivenUpReason)


def generated_twice(history: History) -> Iterator[str]:
    """No second completed generation for one idempotency key."""
    for key, count in Counter(done.key for done in history.completed).items():
        if count > 1:
            yield f"{key}: generated {count} times"


def beyond_budget(history: History) -> Iterator[str]:
    """The operator started no action that took it beyond the budget."""
    for act in history.acts:
        if act.acting > act.budget:
            yield f"{act.worker}: {act.reason} with {act.acting} under way, budget {act.budget}"
        elif act.costs and act.unavailable > act.budget:
            yield f"{act.worker}: {act.reason} with {act.unavailable} unavailable, budget {act.budget}"


def recycled_twice(history: History) -> Iterator[str]:
    """At most one recycle per incarnation, and none of one that nothing was wrong with."""
    counts = Counter((recycle.worker, recycle.incarnation) for recycle in history.recycles)
    for (worker, incarnation), count in counts.items():
        if count > 1:
            yield f"{worker}: incarnation {incarnation} recycled {count} times"
    for recycle in history.recycles:
        if recycle.cause is None:
            yield f"{recycle.worker}: incarnation {recycle.incarnation} recycled without a cause"


def acted_on_unknown(history: History) -> Iterator[str]:
    """Nothing done on Unknown: no action begins on data that are missing, stale or contradictory."""
    for act in history.acts:
        if act.evidence_age is not None and act.evidence_age > history.evidence_limit:
            yield (
                f"{act.worker}: {act.reason} on evidence {act.evidence_age:.1f} s old,"
                f" {history.evidence_limit:.1f} s count as fresh"
            )


def killed_in_sight(history: History) -> Iterator[str]:
    """No OOM kill of a worker whose unreclaimable memory was above the cordon threshold for two scrapes and
    a tick; nor of one whose memory nobody looked at for so long, since nothing says how it stood."""
    for kill in history.oom_kills:
        about = f"{kill.worker}: incarnation {kill.incarnation[:12]} killed by the OOM killer"
        samples = sorted(
            (each for each in history.memory if each.incarnation == kill.incarnation and each.at <= kill.at),
            key=lambda each: each.at,
        )
        if not samples or kill.at - samples[-1].at > history.sight:
            yield f"{about}, and nobody knows how it stood before"
            continue
        below = max((each.at for each in samples if each.share < history.cordon_threshold), default=None)
        above = [each.at for each in samples if below is None or each.at > below]
        if above and kill.at - above[0] >= history.sight:
            yield (
                f"{about} after {kill.at - above[0]:.1f} s above {history.cordon_threshold:.0%} of its limit,"
                f" {history.sight:.1f} s are enough to see it"
            )


def not_recovered(history: History) -> Iterator[str]:
    """Recovery without a person, within the deadline."""
    if not history.recovered:
        yield history.unrecovered or "not as before within the deadline"
    for what in history.helped:
        yield f"a person had to: {what}"


LOST, DUPLICATED = "tasks_lost", "generated_twice"

INVARIANTS: Mapping[str, Callable[[History], Iterator[str]]] = MappingProxyType(
    {
        LOST: tasks_lost,
        DUPLICATED: generated_twice,
        "beyond_budget": beyond_budget,
        "recycled_twice": recycled_twice,
        "acted_on_unknown": acted_on_unknown,
        "killed_in_sight": killed_in_sight,
        "not_recovered": not_recovered,
    }
)


def check(history: History) -> list[Breach]:
    """All breaches of all invariants."""
    return [
        Breach(name, *_split(text)) for name, invariant in INVARIANTS.items() for text in invariant(history)
    ]


def _split(text: str) -> tuple[str, str]:
    subject, _, detail = text.partition(": ")
    return (subject, detail) if detail else ("", subject)
