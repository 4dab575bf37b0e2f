"""What a run amounted to: per validator, per worker, and whether every task is accounted for.

Pure: takes what the validators' ledgers, the miner's journal and the workers' metrics say, returns rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sn17_contract.tasks import Outcome


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task as the miner's journal knows it; ``outcome`` is None while it is under way."""

    task_id: str
    validator: str
    kind: str
    outcome: Outcome | None
    reason: str = ""
    score: float | None = None
    delivery_seconds: float | None = None
    uid: int | None = None
    """The validator's, where it is known."""


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker as its own metrics show it over all its incarnations of this run."""

    name: str
    state: str
    generations: int
    gaussians_mean: float | None
    memory_peak_bytes: int
    memory_limit_bytes: int | None
    restarts: int | None


@dataclass(frozen=True, slots=True)
class ValidatorRow:
    """One line of the success table."""

    validator: str
    pulled: int
    outcomes: Mapping[Outcome, int]
    open: int
    mean_score: float | None
    delivery_p50: float | None
    delivery_p95: float | None
    uid: int | None = None

    @property
    def success(self) -> float | None:
        """accepted / (all that ended but the skipped); None before anything ended."""
        return success_ratio(self.outcomes)

    @property
    def yield_(self) -> float | None:
        """accepted / pulled."""
        return self.outcomes[Outcome.ACCEPTED] / self.pulled if self.pulled else None


@dataclass(frozen=True, slots=True)
class Report:
    """The whole of a run."""

    validators: tuple[ValidatorRow, ...]
    workers: tuple[WorkerRecord, ...]
    unaccounted: tuple[str, ...] = field(default=())
    waiting: str = ""
    """Why the miner asks for no task; empty while it does."""

    @property
    def total(self) -> ValidatorRow:
        """All validators together; scores and deliveries are not averaged over averages."""
        outcomes: Counter[Outcome] = Counter()
        for row in self.validators:
            outcomes.update(row.outcomes)
        return ValidatorRow(
            validator="all",
            pulled=sum(row.pulled for row in self.validators),
            outcomes={outcome: outcomes[outcome] for outcome in Outcome},
            open=sum(row.open for row in self.validators),
            mean_score=None,
            delivery_p50=None,
            delivery_p95=None,
        )


def success_ratio(outcomes: Mapping[Outcome, int]) -> float | None:
    """Share of accepted among all ended tasks that were not skipped."""
    judged = sum(count for outcome, count in outcomes.items() if outcome is not Outcome.SKIPPED)
    return outcomes[Outcome.ACCEPTED] / judged if judged else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile, ``share`` in (0, 1]; None for no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def build(
    tasks: Iterable[TaskRecord],
    workers: Iterable[WorkerRecord],
    *,
    validators: Sequence[str],
    assigned: Mapping[str, str],
) -> Report:
    """Make the report.

    Args:
        tasks: the miner's journal.
        workers: one record per worker.
        validators: hotkeys in the order of the table.
        assigned: task id -> validator hotkey, as the validators' own ledgers have it. A task that a validator
            handed out and that has no final outcome in the journal is unaccounted for.
    """
    by_validator: dict[str, list[TaskRecord]] = {hotkey: [] for hotkey in validators}
    ended: set[str] = set()
    for task in tasks:
        by_validator.setdefault(task.validator, []).append(task)
        if task.outcome is not None:
            ended.add(task.task_id)
    return Report(
        validators=tuple(_row(hotkey, records) for hotkey, records in by_validator.items()),
        workers=tuple(workers),
        unaccounted=tuple(sorted(task_id for task_id in assigned if task_id not in ended)),
    )


def _row(hotkey: str, records: Sequence[TaskRecord]) -> ValidatorRow:
    counts = Counter(record.outcome for record in records)
    scores = [record.score for record in records if record.score is not None]
    deliveries = [record.delivery_seconds for record in records if record.delivery_seconds is not None]
    return ValidatorRow(
        validator=hotkey,
        uid=next((record.uid for record in records if record.uid is not None), None),
        pulled=len(records),
        outcomes={outcome: counts[outcome] for outcome in Outcome},
        open=counts[None],
        mean_score=sum(scores) / len(scores) if scores else None,
        delivery_p50=percentile(deliveries, 0.5),
        delivery_p95=percentile(deliveries, 0.95),
    )
