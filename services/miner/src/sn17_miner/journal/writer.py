"""What transitions of the journal are made of: a transaction, a check of where the task stands, an event."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from sn17_contract.tasks import AttemptState, TaskState

from sn17_miner.core.records import Attempt, ValidatorRecord
from sn17_miner.journal import migrations
from sn17_miner.journal.reader import JournalError, JournalReader


class JournalWriter(JournalReader):
    """The parts; no transition of its own."""

    _db: sqlite3.Connection
    _clock: Callable[[], float]

    def _transaction(self) -> contextlib.AbstractContextManager[None]:
        return migrations.transaction(self._db)

    @contextlib.contextmanager
    def _step(
        self, n: int, before: tuple[TaskState, ...], event: str, detail: str, after: TaskState | None = None
    ) -> Iterator[None]:
        with self._transaction():
            row = self._db.execute("SELECT state FROM tasks WHERE n=?", (n,)).fetchone()
            if row is None or row[0] not in before:
                raise JournalError(f"{event}: task {n} is {row[0] if row else 'unknown'}")
            yield
            if after is not None:
                self._db.execute("UPDATE tasks SET state=? WHERE n=?", (after.value, n))
            self._event(n, event, detail)

    def _event(self, n: int, event: str, detail: str) -> None:
        self._db.execute(
            "INSERT INTO events (task, at, event, detail) VALUES (?,?,?,?)",
            (n, self._clock(), event, detail[:2000]),
        )

    def _save(self, record: ValidatorRecord) -> None:
        values = tuple(getattr(record, f.name) for f in fields(ValidatorRecord))
        placeholders = ", ".join("?" * len(values))
        self._db.execute(f"INSERT OR REPLACE INTO validators VALUES ({placeholders})", values)  # noqa: S608

    def _expect_attempt(self, attempt: Attempt, state: AttemptState) -> None:
        if self._attempt(attempt.task, attempt.number).state is not state:
            raise JournalError(f"attempt {attempt.key} is not {state}")

    def _set_attempt(self, attempt: Attempt, before: AttemptState, **values: Any) -> None:
        self._expect_attempt(attempt, before)
        columns = ", ".join(f"{name}=?" for name in values)
        self._db.execute(
            f"UPDATE attempts SET {columns} WHERE task=? AND number=?",  # noqa: S608
            (*values.values(), attempt.task, attempt.number),
        )
