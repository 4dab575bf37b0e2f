"""What the running processes say of themselves, as records for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from sn17.up.report import TaskRecord, WorkerRecord
from sn17_contract.local_network import NetworkLedger, Unjudged
from sn17_contract.metrics import GenerationKind, Metric
from sn17_contract.tasks import VALIDATORS, TaskView
from sn17_contract.worker import LastRecycle, WorkerStatus
from sn17_miner.core.records import Task
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError

JOURNAL_WINDOW = 100_000


@dataclass(slots=True)
class Incarnation:
    """The latest counts of one life of a worker's process."""

    generations: int = 0
    gaussians_sum: float = 0.0


@dataclass(slots=True)
class WorkerTally:
    """One worker over all its incarnations: a restart starts its counters anew, not our sums."""

    name: str
    state: str = "starting"
    memory_peak: int = 0
    memory_limit: int | None = None
    last_recycle: LastRecycle | None = None
    lives: dict[str, Incarnation] = field(default_factory=dict)

    def observe(self, worker: WorkerStatus, exposition: str) -> None:
        """Take in one answer of ``GET /v1/worker`` and one of ``GET /metrics``."""
        self.state = worker.state
        self.last_recycle = worker.last_recycle
        if worker.memory is not None:
            self.memory_peak = max(self.memory_peak, worker.memory.unreclaimable_bytes)
            self.memory_limit = worker.memory.limit_bytes
        life = self.lives.setdefault(worker.boot_id, Incarnation())
        for family in text_string_to_metric_families(exposition):
            if family.name != Metric.GENERATION_GAUSSIANS:
                continue
            for sample in family.samples:
                if sample.labels.get("kind") != GenerationKind.TASK:
                    continue
                if sample.name.endswith("_count"):
                    life.generations = int(sample.value)
                elif sample.name.endswith("_sum"):
                    life.gaussians_sum = sample.value

    def record(self, restarts: int | None) -> WorkerRecord:
        """The line of the table; ``restarts`` is None for a worker that is not our child."""
        generations = sum(life.generations for life in self.lives.values())
        gaussians = sum(life.gaussians_sum for life in self.lives.values())
        return WorkerRecord(
            name=self.name,
            state=self.state,
            generations=generations,
            gaussians_mean=gaussians / generations if generations else None,
            memory_peak_bytes=self.memory_peak,
            memory_limit_bytes=self.memory_limit,
            restarts=restarts,
        )


async def observe_worker(client: httpx2.AsyncClient, tally: WorkerTally, *, url: str, ops_url: str) -> None:
    """Ask a worker; one that does not answer is shown as ``unreachable``."""
    try:
        answer = (await client.get(f"{url}/v1/worker")).raise_for_status()
        worker = WorkerStatus.model_validate_json(answer.content)
        exposition = (await client.get(f"{ops_url}/metrics")).raise_for_status().text
    except (httpx2.HTTPError, ValidationError):
        tally.state = "unreachable"
        return
    tally.observe(worker, exposition)


def read_tasks(journal: Path) -> list[TaskRecord]:
    """All validators' tasks of the journal, oldest first; none while the miner has not made it yet."""
    if not journal.exists():
        return []
    try:
        reader = Journal(journal, readonly=True)
    except JournalError:
        return []
    try:
        tasks, uids = reader.tasks(limit=JOURNAL_WINDOW, door=VALIDATORS), reader.uids()
    finally:
        reader.close()
    return [task_record(task, uids.get(task.validator)) for task in reversed(tasks)]


def task_record(task: Task | TaskView, uid: int | None) -> TaskRecord:
    """A row of the journal, or of a miner's answer, for the report."""
    return TaskRecord(
        task_id=task.task_id,
        validator=task.validator,
        kind=task.kind,
        outcome=task.outcome,
        reason=task.reason or "",
        score=task.score,
        delivery_seconds=None if task.finished_at is None else task.finished_at - task.pulled_at,
        uid=uid,
    )


def assigned_tasks(ledger: NetworkLedger) -> dict[str, str]:
    """Task id -> validator hotkey of all that the validators handed out and did not forget themselves."""
    return {
        task.task_id: validator.hotkey
        for validator in ledger.validators
        for task in validator.tasks
        if task.outcome is not Unjudged.DROPPED
    }
