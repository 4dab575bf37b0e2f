"""What the nodes share and a restart does not lose: states of tasks, and what keys have used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sn17_contract.gateway import KeyKind

from sn17_devnet.gateway.model import DEADLINE, ClientKey, Record, State, Status

DAY_SECONDS: Final = 86_400.0


class Database:
    """In this process, for the life of the fake. ``keep_seconds``: of a state, after its end."""

    def __init__(self, clock: Callable[[], float], keep_seconds: float = DAY_SECONDS) -> None:
        self.records: dict[str, Record] = {}
        self._clock = clock
        self._keep_seconds = keep_seconds

    def add(self, record: Record) -> None:
        self.records[record.id] = record

    def status(self, task: str) -> Status:
        """An unknown task looks like one that waits."""
        record = self.records.get(task)
        return Status(State.NO_RESULT) if record is None else record.status()

    def end(self, record: Record, status: Status) -> None:
        """Set the end of a task; a later one changes nothing."""
        if record.end is None:
            record.end = status
            record.ended_at = self._clock()

    def tick(self, held: Callable[[Record], bool]) -> None:
        """End what no node holds in memory at its deadline; forget what ended long ago."""
        now = self._clock()
        for record in self.records.values():
            if record.end is None and now >= record.expires_at and not held(record):
                self.end(record, Status(State.FAILURE, reason=DEADLINE))
        self.records = {
            task: record
            for task, record in self.records.items()
            if record.ended_at is None or now < record.ended_at + self._keep_seconds
        }

    def refusal(self, key: ClientKey, address: str) -> str | None:
        """The code by which one more task of this key is refused, or None."""
        now = self._clock()
        mine = [record for record in self.records.values() if record.owner == key.text]
        if key.concurrent and sum(record.end is None for record in mine) >= key.concurrent:
            return "concurrent_limit"
        company = key.kind is KeyKind.COMPANY
        since = now - now % DAY_SECONDS if company else now - DAY_SECONDS
        # A company's failures are refunded.
        today = [record for record in mine if record.created_at > since and not (company and _failed(record))]
        if key.daily and len(today) >= key.daily:
            return "insufficient_balance" if key.kind is KeyKind.PERSONAL else "daily_limit"
        if key.daily_by_address and sum(r.address == address for r in today) >= key.daily_by_address:
            return "daily_limit"
        return None


def _failed(record: Record) -> bool:
    return record.end is not None and record.end.text == State.FAILURE
