"""How tasks come into the journal: by a pull from a validator, or as an offer of a gateway."""

from __future__ import annotations

import sqlite3

from sn17_contract.tasks import VALIDATORS, TaskKind

from sn17_miner.core.records import Assignment, Task, ValidatorRecord
from sn17_miner.journal.reader import JournalError
from sn17_miner.journal.writer import JournalWriter


class Intake(JournalWriter):
    """See the module."""

    def task_pulled(
        self,
        *,
        task_id: str,
        validator: str,
        kind: TaskKind,
        prompt: str,
        threshold: float,
        throttle: float,
        assigned_at: float,
        idle: float | None = None,
        record: ValidatorRecord | None = None,
    ) -> tuple[Task, bool]:
        """Remember what a pull brought. The same open task again is no new one: (task, False).

        Another open task of this validator was dropped by it and must be finished first. ``record`` is what
        a restart needs to find the validator again.
        """
        with self._transaction():
            if record is not None:
                self._save(record)
            row = self._db.execute(
                "SELECT n, task_id FROM tasks WHERE validator=? AND state!='done'", (validator,)
            ).fetchone()
            if row is not None:
                if row[1] != task_id:
                    raise JournalError(f"{validator[:8]} still has task {row[1]} open")
                self._event(row[0], "handed out again", "the validator still has this task assigned")
                return self._read(row[0]), False
            n = self._insert(
                VALIDATORS,
                task_id=task_id,
                validator=validator,
                kind=kind,
                prompt=prompt,
                threshold=threshold,
                throttle=throttle,
                assigned_at=assigned_at,
                idle=idle,
            )
            waited = "" if idle is None else f", {idle:.2f} s after the cooldown with a worker free"
            self._event(
                n, "pulled", f"{kind.value} task, threshold {threshold}, free window {throttle:g} s{waited}"
            )
            return self._read(n), True

    def task_offered(
        self,
        door: str,
        *,
        task_id: str,
        kind: TaskKind,
        prompt: str,
        assignment: Assignment,
        assigned_at: float,
        threshold: float,
    ) -> tuple[Task, bool]:
        """Remember what a gateway handed out. The same open task again brings a new assignment, which
        replaces the old one: (task, False).
        """
        life = assignment.expires_at - assigned_at
        with self._transaction():
            row = self._db.execute(
                "SELECT n FROM tasks WHERE door=? AND task_id=? AND state!='done'", (door, task_id)
            ).fetchone()
            if row is not None:
                self._assign(row[0], assignment)
                self._event(row[0], "handed out again", f"a new assignment by {assignment.node}")
                return self._read(row[0]), False
            n = self._insert(
                door,
                task_id=task_id,
                validator="",
                kind=kind,
                prompt=prompt,
                threshold=threshold,
                throttle=life,
                assigned_at=assigned_at,
                idle=None,
            )
            self._assign(n, assignment)
            self._event(n, "pulled", f"{kind.value} task of {door} at {assignment.node}, {life:g} s at most")
            return self._read(n), True

    def _insert(
        self,
        door: str,
        *,
        task_id: str,
        validator: str,
        kind: TaskKind,
        prompt: str,
        threshold: float,
        throttle: float,
        assigned_at: float,
        idle: float | None,
    ) -> int:
        cursor: sqlite3.Cursor = self._db.execute(
            "INSERT INTO tasks (door, task_id, validator, kind, prompt, enhancement, threshold, throttle,"
            " assigned_at, pulled_at, idle, state) VALUES (?,?,?,?,?,'none',?,?,?,?,?,'pulled')",
            (
                door,
                task_id,
                validator,
                kind.value,
                prompt,
                threshold,
                throttle,
                assigned_at,
                self._clock(),
                idle,
            ),
        )
        return int(cursor.lastrowid or 0)

    def _assign(self, n: int, assignment: Assignment) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO assignments (task, node, token, worker_id, model, seed, expires_at)"
            " VALUES (?,?,?,?,?,?,?)",
            (
                n,
                assignment.node,
                assignment.token,
                assignment.worker_id,
                assignment.model,
                assignment.seed,
                assignment.expires_at,
            ),
        )
