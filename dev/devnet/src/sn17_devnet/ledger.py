"""The referee's view: every task a validator handed out and what became of it.

Validators forget when they restart; the ledger does not, so that a test can ask what really happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field

from sn17_contract.local_network import LedgerTask, Unjudged, ValidatorLedger
from sn17_contract.tasks import Outcome

from sn17_devnet.tasks import SceneTask


@dataclass(slots=True)
class Record:
    """One assignment of one task. Times in seconds since the epoch."""

    task_id: str
    kind: str
    scene: str
    hotkey: str
    assigned_at: float
    outcome: Outcome | Unjudged = Unjudged.OPEN
    reason: str = ""
    score: float | None = None
    closed_at: float | None = None
    reissued: int = 0
    locked: int = 0

    @property
    def delivery_seconds(self) -> float | None:
        """From the assignment to the end of validation."""
        return None if self.closed_at is None else self.closed_at - self.assigned_at


@dataclass(slots=True)
class Ledger:
    """Records by serial number; beyond ``capacity`` the oldest are forgotten."""

    capacity: int = 50_000
    records: dict[int, Record] = field(default_factory=dict)
    violations: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    _serial: int = 0

    def assigned(self, hotkey: str, scene_task: SceneTask, now: float) -> int:
        """Open a record; returns its serial number."""
        task = scene_task.task
        self._serial += 1
        self.records[self._serial] = Record(task.id, task.type, scene_task.scene, hotkey, now)
        if len(self.records) > self.capacity:
            del self.records[next(iter(self.records))]
        return self._serial

    def is_open(self, serial: int) -> bool:
        record = self.records.get(serial)
        return record is not None and record.outcome is Unjudged.OPEN

    def reissued(self, serial: int) -> None:
        if record := self.records.get(serial):
            record.reissued += 1

    def locked(self, serial: int) -> None:
        if record := self.records.get(serial):
            record.locked += 1

    def violation(self, hotkey: str) -> None:
        self.violations[hotkey] += 1

    def closed(self, serial: int, outcome: Outcome, reason: str, score: float | None, now: float) -> None:
        if record := self.records.get(serial):
            record.outcome, record.reason, record.score, record.closed_at = outcome, reason, score, now

    def restarted(self, held: Collection[int], now: float) -> None:
        """The validator came back knowing only the tasks ``held``."""
        self.restarts += 1
        for serial, record in self.records.items():
            if record.outcome is Unjudged.OPEN and serial not in held:
                record.outcome, record.reason, record.closed_at = Unjudged.DROPPED, "restart", now

    def summary(self, hotkey: str, port: int, *, up: bool) -> ValidatorLedger:
        """Everything, as the validator ``hotkey`` at ``port`` shows it."""
        return ValidatorLedger(
            hotkey=hotkey,
            port=port,
            up=up,
            outcomes=dict(Counter(record.outcome.value for record in self.records.values())),
            violations=dict(self.violations),
            restarts=self.restarts,
            tasks=tuple(
                LedgerTask(**asdict(record), delivery_seconds=record.delivery_seconds)
                for record in self.records.values()
            ),
        )
