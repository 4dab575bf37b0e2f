"""What the journal tells: tasks with their attempts, their stories, counts, validators. Writes nothing."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from typing import Any, Final

from sn17_miner.core.records import Attempt, AttemptState, Event, Task, TaskState, ValidatorRecord

_TASK_COLUMNS: Final = ", ".join(f.name for f in fields(Task) if f.name != "attempts")
_ATTEMPT_COLUMNS: Final = ", ".join(f.name for f in fields(Attempt))


class JournalError(RuntimeError):
    """The transition does not fit the state on disk, or the file is not this journal."""


class JournalReader:
    """Everything that can be asked of an open journal."""

    _db: sqlite3.Connection

    def task(self, n: int) -> Task:
        """One task with its attempts. Raises JournalError when there is none."""
        return self._read(n)

    def open_tasks(self) -> list[Task]:
        """What a restart has to continue, oldest first."""
        rows = self._db.execute("SELECT n FROM tasks WHERE state!='done' ORDER BY n").fetchall()
        return [self._read(row[0]) for row in rows]

    def tasks(
        self,
        *,
        limit: int = 50,
        state: str | None = None,
        validator: str | None = None,
        task_id: str | None = None,
    ) -> list[Task]:
        """The newest tasks; ``validator`` and ``task_id`` may be beginnings."""
        where, values = ["1"], list[Any]()
        for clause, value in (("state=?", state),):
            if value is not None:
                where.append(clause)
                values.append(value)
        for column, start in (("validator", validator), ("task_id", task_id)):
            if start is not None:
                where.append(f"substr({column}, 1, ?) = ?")
                values += [len(start), start]
        query = f"SELECT n FROM tasks WHERE {' AND '.join(where)} ORDER BY n DESC LIMIT ?"  # noqa: S608
        return [self._read(row[0]) for row in self._db.execute(query, (*values, limit)).fetchall()]

    def events(self, n: int) -> list[Event]:
        """A task's story."""
        rows = self._db.execute("SELECT task, at, event, detail FROM events WHERE task=? ORDER BY seq", (n,))
        return [Event(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """Tasks by state."""
        return {
            row[0]: row[1] for row in self._db.execute("SELECT state, count(*) FROM tasks GROUP BY state")
        }

    def outcomes(self, since: float) -> list[tuple[str, str, str | None, int]]:
        """(validator, outcome, reason, count) of tasks finished since then."""
        rows = self._db.execute(
            "SELECT validator, outcome, reason, count(*) FROM tasks WHERE state='done' AND finished_at >= ?"
            " GROUP BY 1, 2, 3",
            (since,),
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    def deliveries(self, since: float) -> tuple[int, int]:
        """(within the free window, all) of results that got a verdict since then."""
        row = self._db.execute(
            "SELECT coalesce(sum(finished_at - assigned_at <= throttle), 0), count(*) FROM tasks"
            " WHERE outcome IN ('accepted', 'rejected') AND finished_at >= ?",
            (since,),
        ).fetchone()
        return int(row[0]), int(row[1])

    def validators(self) -> list[ValidatorRecord]:
        """All that are remembered."""
        columns = ", ".join(f.name for f in fields(ValidatorRecord))
        return [ValidatorRecord(*row) for row in self._db.execute(f"SELECT {columns} FROM validators")]  # noqa: S608

    def payloads(self) -> set[str]:
        """Names of all spool files that are still needed."""
        rows = self._db.execute(
            "SELECT ply, spz FROM attempts JOIN tasks ON n = task WHERE tasks.state != 'done'"
        )
        return {name for row in rows for name in row if name}

    def _attempt(self, n: int, number: int) -> Attempt:
        row = self._db.execute(
            f"SELECT {_ATTEMPT_COLUMNS} FROM attempts WHERE task=? AND number=?",  # noqa: S608
            (n, number),
        ).fetchone()
        if row is None:
            raise JournalError(f"task {n} has no attempt {number}")
        return _attempt_of(row)

    def _read(self, n: int) -> Task:
        row = self._db.execute(f"SELECT {_TASK_COLUMNS} FROM tasks WHERE n=?", (n,)).fetchone()  # noqa: S608
        if row is None:
            raise JournalError(f"there is no task {n}")
        attempts = self._db.execute(
            f"SELECT {_ATTEMPT_COLUMNS} FROM attempts WHERE task=? ORDER BY number",  # noqa: S608
            (n,),
        )
        names = _TASK_COLUMNS.split(", ")
        values = dict(zip(names, row, strict=True))
        values["state"] = TaskState(values["state"])
        return Task(**values, attempts=tuple(_attempt_of(a) for a in attempts))


def _attempt_of(row: tuple[Any, ...]) -> Attempt:
    values = dict(zip(_ATTEMPT_COLUMNS.split(", "), row, strict=True))
    values["state"] = AttemptState(values["state"])
    return Attempt(**values)
