"""What the journal tells: tasks with their attempts, their stories, counts, validators. Writes nothing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields
from typing import Any, Final

from sn17_contract.tasks import (
    VALIDATORS,
    AttemptState,
    Enhancement,
    Failure,
    GivenUpReason,
    Lane,
    Outcome,
    Signal,
    TaskKind,
    TaskState,
)

from sn17_miner.core.records import (
    Assignment,
    Attempt,
    Event,
    ResultSignal,
    Skip,
    Task,
    ValidatorRecord,
)

_TASK_COLUMNS: Final = (
    "n, task_id, validator, kind, prompt, sent_prompt, enhancement, threshold, throttle, assigned_at,"
    " pulled_at, idle, state, submits, submitted_attempt, submit_time, skip_outcome, skip_reason, outcome,"
    " reason, score, finished_at, door"
)
_ASSIGNMENT_COLUMNS: Final = ", ".join(f.name for f in fields(Assignment))
_ATTEMPT_COLUMNS: Final = (
    "task, number, key, worker, boot_id, seed, round, state, started_at, finished_at, ply, spz, report,"
    " signal, signal_score, confidence, failure, error, enhanced, lane"
)


class JournalError(RuntimeError):
    """The transition does not fit the state on disk, or the file is not this journal."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A choice of tasks; None chooses all. ``validator`` is a uid or the beginning of a hotkey, ``task_id``
    the beginning of an id, ``door`` a whole name.
    """

    validator: str | None = None
    task_id: str | None = None
    door: str | None = None

    def clause(self) -> tuple[str, list[Any]]:
        """A condition for WHERE and its values."""
        where, values = ["1"], list[Any]()
        uid = self.validator if self.validator and self.validator.isdecimal() else None
        if uid is not None:
            where.append("validator IN (SELECT hotkey FROM validators WHERE uid = ?)")
            values.append(int(uid))
        if self.door is not None:
            where.append("door = ?")
            values.append(self.door)
        starts = (("validator", None if uid else self.validator), ("task_id", self.task_id))
        for column, start in starts:
            if start is not None:
                where.append(f"substr({column}, 1, ?) = ?")
                values += [len(start), start]
        return " AND ".join(where), values


@dataclass(frozen=True, slots=True)
class Ended:
    """So many tasks of a door, and there of a validator, ended this way."""

    door: str
    validator: str
    outcome: Outcome
    reason: GivenUpReason | None
    count: int


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
        door: str | None = None,
    ) -> list[Task]:
        """The newest tasks; ``validator``, ``task_id`` and ``door`` as in ``Chosen``."""
        where, values = Chosen(validator, task_id, door).clause()
        if state is not None:
            where, values = f"{where} AND state=?", [*values, state]
        query = f"SELECT n FROM tasks WHERE {where} ORDER BY n DESC LIMIT ?"  # noqa: S608
        return [self._read(row[0]) for row in self._db.execute(query, (*values, limit)).fetchall()]

    def events(self, n: int) -> list[Event]:
        """A task's story."""
        rows = self._db.execute("SELECT task, at, event, detail FROM events WHERE task=? ORDER BY seq", (n,))
        return [Event(*row) for row in rows]

    def counts(self, chosen: Chosen = Chosen()) -> dict[TaskState, int]:
        """Tasks by state."""
        where, values = chosen.clause()
        rows = self._db.execute(f"SELECT state, count(*) FROM tasks WHERE {where} GROUP BY state", values)  # noqa: S608
        return {TaskState(row[0]): row[1] for row in rows}

    def outcomes(self, since: float, chosen: Chosen = Chosen()) -> list[Ended]:
        """Tasks finished since then, counted."""
        where, values = chosen.clause()
        rows = self._db.execute(
            "SELECT door, validator, outcome, reason, count(*) FROM tasks"  # noqa: S608
            f" WHERE state='done' AND finished_at >= ? AND {where} GROUP BY 1, 2, 3, 4",
            (since, *values),
        )
        return [Ended(r[0], r[1], Outcome(r[2]), _reason_of(r[3]), r[4]) for r in rows]

    def deliveries(self, since: float, chosen: Chosen = Chosen()) -> dict[str, tuple[int, int]]:
        """Per validator (within the free window, all) results that got a verdict since then."""
        where, values = chosen.clause()
        rows = self._db.execute(
            "SELECT validator, sum(finished_at - assigned_at <= throttle), count(*) FROM tasks"  # noqa: S608
            " WHERE outcome IN ('accepted', 'rejected') AND finished_at >= ? AND door=?"
            f" AND {where} GROUP BY 1",
            (since, VALIDATORS, *values),
        )
        return {row[0]: (int(row[1]), int(row[2])) for row in rows}

    def open_by_node(self) -> dict[str, int]:
        """Tasks of gateways that are under way, by the node they came from."""
        rows = self._db.execute(
            "SELECT node, count(*) FROM assignments JOIN tasks ON n = task WHERE state != 'done' GROUP BY 1"
        )
        return dict(rows.fetchall())

    def uids(self) -> dict[str, int]:
        """The uid of every validator that is remembered, by hotkey."""
        return dict(self._db.execute("SELECT hotkey, uid FROM validators").fetchall())

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
        assigned = self._db.execute(
            f"SELECT {_ASSIGNMENT_COLUMNS} FROM assignments WHERE task=?",  # noqa: S608
            (n,),
        ).fetchone()
        assignment = None if assigned is None else Assignment(*assigned)
        return _task_of(row, tuple(_attempt_of(a) for a in attempts), assignment)


def _task_of(row: tuple[Any, ...], attempts: tuple[Attempt, ...], assignment: Assignment | None) -> Task:
    values = dict(zip(_TASK_COLUMNS.split(", "), row, strict=True))
    skip, reason = values.pop("skip_outcome"), values.pop("skip_reason")
    values |= {
        "kind": TaskKind(values["kind"]),
        "enhancement": Enhancement(values["enhancement"]),
        "state": TaskState(values["state"]),
        "skip": Skip(Outcome(skip), _reason_of(reason)) if skip else None,
        "outcome": Outcome(values["outcome"]) if values["outcome"] else None,
        "reason": _reason_of(values["reason"]),
    }
    return Task(**values, attempts=attempts, assignment=assignment)


def _attempt_of(row: tuple[Any, ...]) -> Attempt:
    values = dict(zip(_ATTEMPT_COLUMNS.split(", "), row, strict=True))
    signal, score = values.pop("signal"), values.pop("signal_score")
    values |= {
        "state": AttemptState(values["state"]),
        "signal": ResultSignal(Signal(signal), score) if signal else None,
        "failure": Failure(values["failure"]) if values["failure"] else None,
        "enhanced": bool(values["enhanced"]),
        "lane": Lane(values["lane"]),
    }
    return Attempt(**values)


def _reason_of(text: str | None) -> GivenUpReason | None:
    return GivenUpReason(text) if text else None
