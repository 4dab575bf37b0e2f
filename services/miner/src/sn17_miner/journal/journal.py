"""The miner's memory: every transition is on disk before its effect happens (SQLite, WAL, full sync).

Each public method that writes is one transaction that checks where the task stands, so a crash leaves either
the old state or the new one. All methods are synchronous; the miner calls them on one thread of their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sn17_contract.tasks import (
    AttemptState,
    Enhancement,
    Failure,
    GivenUpReason,
    Lane,
    Outcome,
    TaskState,
)

from sn17_miner.core.records import Attempt, ResultSignal, Skip, Task, ValidatorRecord
from sn17_miner.journal import migrations
from sn17_miner.journal.intake import Intake
from sn17_miner.journal.reader import JournalError
from sn17_miner.lock import NEEDS, filesystem_of

PAGE_CACHE_KIB: Final = 256
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OPEN: Final = tuple(state for state in TaskState if state is not TaskState.DONE)
_BEFORE_SUBMIT: Final = (TaskState.PULLED, TaskState.GENERATING, TaskState.GENERATED, TaskState.FIXED)


class Journal(Intake):
    """See the module. ``readonly`` opens an existing journal beside a running miner; one of an older schema
    is read from a copy in memory, since only its miner may change it.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        readonly: bool = False,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        """Raises JournalError: no journal, one of a newer program, or a disk that cannot hold one."""
        self._clock = clock
        # A path may hold what means something else in a URI.
        where = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rwc'}"
        try:
            self._db = connect(where, uri=True, isolation_level=None, check_same_thread=False, timeout=10.0)
            if readonly:
                self._db = _current(self._db)
            else:
                self._prepare()
                migrations.migrate(self._db)
        except sqlite3.Error as error:
            raise JournalError(f"{path}: {_cause(error, path)}") from error
        except JournalError as error:
            raise JournalError(f"{path}: {error}") from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA foreign_keys=ON")
        # The kernel keeps the file's pages anyway; SQLite's own copies are memory that grows for a day.
        self._db.execute(f"PRAGMA cache_size=-{PAGE_CACHE_KIB}")
        self._db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        mode = self._db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode not in ("wal", "memory"):
            raise JournalError(f"the write-ahead log is not possible here ({mode}); {NEEDS}")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(f"PRAGMA journal_size_limit={8 * 1024 * 1024}")

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._db.close()

    # --- transitions ----------------------------------------------------------------------------

    def enhanced(self, n: int, *, kind: Enhancement, sent_prompt: str, detail: str) -> Task:
        """The worker gets ``sent_prompt`` in place of the prompt."""
        with self._step(n, (TaskState.PULLED,), "enhanced", detail):
            self._db.execute(
                "UPDATE tasks SET enhancement=?, sent_prompt=? WHERE n=?", (kind.value, sent_prompt, n)
            )
        return self.task(n)

    def attempt_started(
        self,
        n: int,
        *,
        worker: str,
        boot_id: str,
        seed: int,
        round_: int,
        enhanced: bool = False,
        lane: Lane = Lane.EXACT,
    ) -> Attempt:
        """A worker is about to be asked; the key is new and never used again."""
        before = (TaskState.PULLED, TaskState.FIXED)
        told = f"on {worker}, seed {seed}" + (", enhanced prompt" if enhanced else "")
        told += ", fast lane" if lane is Lane.FAST else ""
        with self._step(n, before, "generate", told, TaskState.GENERATING):
            task_id = self._db.execute("SELECT task_id FROM tasks WHERE n=?", (n,)).fetchone()[0]
            number = 1 + int(
                self._db.execute(
                    "SELECT coalesce(max(number), 0) FROM attempts JOIN tasks ON n = task WHERE task_id=?",
                    (task_id,),
                ).fetchone()[0]
            )
            self._db.execute(
                "INSERT INTO attempts (task, number, key, worker, boot_id, seed, round, enhanced, lane,"
                " state, started_at) VALUES (?,?,?,?,?,?,?,?,?,'running',?)",
                (
                    n,
                    number,
                    job_key(task_id, number),
                    worker,
                    boot_id,
                    seed,
                    round_,
                    enhanced,
                    lane.value,
                    self._clock(),
                ),
            )
        return self._attempt(n, number)

    def attempt_resumed(self, attempt: Attempt, detail: str) -> None:
        """The same key goes to the same worker again: it joins the job or gets the kept result."""
        with self._step(attempt.task, (TaskState.GENERATING,), "resumed", detail):
            self._expect_attempt(attempt, AttemptState.RUNNING)

    def attempt_generated(self, attempt: Attempt, *, ply: str, detail: str, lane: Lane = Lane.EXACT) -> Task:
        """The result lies in the spool, on disk; ``lane`` is the one that it was made in."""
        n = attempt.task
        with self._step(n, (TaskState.GENERATING,), "generated", detail, TaskState.GENERATED):
            self._set_attempt(
                attempt,
                AttemptState.RUNNING,
                state="generated",
                ply=ply,
                lane=lane.value,
                finished_at=self._clock(),
            )
        return self.task(n)

    def attempt_failed(self, attempt: Attempt, failure: Failure, error: str) -> Task:
        """This generation leads nowhere, or its payload is gone. The task is back where it was before it."""
        n = attempt.task
        values: dict[str, Any] = {"state": "failed", "failure": failure.value, "error": error}
        values |= {"ply": None, "spz": None}
        told = f"{failure.value}: {error}"
        if attempt.finished_at is None:
            values["finished_at"] = self._clock()
        with self._step(n, tuple(s for s in _OPEN if s is not TaskState.PULLED), "generation failed", told):
            self._set_attempt(attempt, attempt.state, **values)
            fixed = self._db.execute("SELECT 1 FROM attempts WHERE task=? AND state='fixed'", (n,)).fetchone()
            self._db.execute("UPDATE tasks SET state=? WHERE n=?", ("fixed" if fixed else "pulled", n))
        return self.task(n)

    def attempt_fixed(
        self, attempt: Attempt, *, spz: str, report: str, signal: ResultSignal, confidence: float, detail: str
    ) -> Task:
        """The fixer's answer lies in the spool. The PLY is no longer needed."""
        n = attempt.task
        with self._step(n, (TaskState.GENERATED,), "fixed", detail, TaskState.FIXED):
            self._set_attempt(
                attempt,
                AttemptState.GENERATED,
                state="fixed",
                ply=None,
                spz=spz,
                report=report,
                signal=signal.kind.value,
                signal_score=signal.score,
                confidence=confidence,
            )
        return self.task(n)

    def submit_started(
        self, n: int, *, submit_time: int, attempt: int | None, skip: Skip | None, detail: str
    ) -> Task:
        """A submission is about to be sent: of an attempt's result, or of nothing, with the reason why."""
        before = (*_BEFORE_SUBMIT, TaskState.SUBMITTING)
        with self._step(n, before, "submit" if skip is None else "skip", detail, TaskState.SUBMITTING):
            self._db.execute(
                "UPDATE tasks SET submits=submits+1, submit_time=?, submitted_attempt=?, skip_outcome=?,"
                " skip_reason=? WHERE n=?",
                (
                    submit_time,
                    attempt,
                    skip and skip.outcome.value,
                    skip and skip.reason and skip.reason.value,
                    n,
                ),
            )
        return self.task(n)

    def finished(
        self,
        n: int,
        *,
        outcome: Outcome,
        reason: GivenUpReason | None,
        score: float | None,
        detail: str,
        validator: ValidatorRecord | None = None,
    ) -> Task:
        """The last word. A cooldown that came with it is stored in the same transaction."""
        with self._step(n, _OPEN, outcome.value, detail, TaskState.DONE):
            self._db.execute(
                "UPDATE tasks SET outcome=?, reason=?, score=?, finished_at=?,"
                " prompt=CASE kind WHEN 'text' THEN substr(prompt, 1, 1024) ELSE '' END,"
                " sent_prompt=CASE kind WHEN 'text' THEN sent_prompt END WHERE n=?",
                (outcome.value, reason and reason.value, score, self._clock(), n),
            )
            self._db.execute("UPDATE attempts SET ply=NULL, spz=NULL WHERE task=?", (n,))
            if validator is not None:
                self._save(validator)
        return self.task(n)

    def note(self, n: int, event: str, detail: str) -> None:
        """A decision or an observation that moves nothing."""
        with self._transaction():
            self._event(n, event, detail)

    def save_validator(self, record: ValidatorRecord) -> None:
        """Remember a validator, above all its cooldown."""
        with self._transaction():
            self._save(record)

    def forget_validators(self, keep: frozenset[str]) -> int:
        """Drop validators that left the metagraph and hold no open task; how many."""
        with self._transaction():
            known = {row[0] for row in self._db.execute("SELECT hotkey FROM validators")}
            busy = {row[0] for row in self._db.execute("SELECT validator FROM tasks WHERE state!='done'")}
            gone = known - keep - busy
            self._db.executemany("DELETE FROM validators WHERE hotkey=?", [(hotkey,) for hotkey in gone])
            return len(gone)

    def prune(self, *, max_age: float, max_tasks: int) -> int:
        """Forget finished tasks older than ``max_age`` seconds, and all but the newest ``max_tasks``."""
        with self._transaction():
            cursor = self._db.execute(
                "DELETE FROM tasks WHERE state='done' AND (finished_at < ? OR n <= "
                "(SELECT coalesce(max(n), 0) FROM tasks) - ?)",
                (self._clock() - max_age, max_tasks),
            )
        self._db.execute("PRAGMA incremental_vacuum").fetchall()
        return cursor.rowcount


def job_key(task_id: str, attempt: int) -> str:
    """The idempotency key of one generation. A validator chooses its ids freely: odd ones are hashed."""
    if not _SAFE_ID.fullmatch(task_id):
        task_id = hashlib.sha256(task_id.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{task_id}/{attempt}"


def _current(db: sqlite3.Connection) -> sqlite3.Connection:
    """The database itself, or an up-to-date copy of it in memory."""
    migrations.check_known(db)
    if migrations.version_of(db) == migrations.SCHEMA_VERSION:
        return db
    copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with contextlib.closing(db):
        db.backup(copy)
    migrations.migrate(copy)
    return copy


_NO_LOCKS: Final = frozenset(
    {"SQLITE_PROTOCOL", "SQLITE_IOERR_LOCK", "SQLITE_IOERR_RDLOCK", "SQLITE_IOERR_UNLOCK"}
)
_NO_SHARED_MEMORY: Final = frozenset({"SQLITE_IOERR_SHMMAP", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMLOCK"})


def _cause(error: sqlite3.Error, path: Path) -> str:
    """What is wrong with the disk, where SQLite's own words do not say it."""
    name = getattr(error, "sqlite_errorname", "")
    if name in _NO_LOCKS or name in _NO_SHARED_MEMORY:
        lacks = "locks" if name in _NO_LOCKS else "shared memory"
        return f"the file system ({filesystem_of(path)}) offers no {lacks}: {error}; {NEEDS}"
    return str(error)
