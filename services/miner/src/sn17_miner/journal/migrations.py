"""The journal's schema as numbered steps. A step that was released is never edited; a change is a new one.

Each step is one transaction together with the number it leads to, so a crash leaves the old schema or the new
one, and the next start goes on from there.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from sn17_miner.journal.reader import JournalError

_FIRST: Final = """
CREATE TABLE tasks (
  n INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, validator TEXT NOT NULL, kind TEXT NOT NULL,
  prompt TEXT NOT NULL, sent_prompt TEXT, enhancement TEXT NOT NULL, threshold REAL NOT NULL,
  throttle REAL NOT NULL, assigned_at REAL NOT NULL, pulled_at REAL NOT NULL, idle REAL,
  state TEXT NOT NULL,
  submits INTEGER NOT NULL DEFAULT 0, submitted_attempt INTEGER, submit_time INTEGER, skip TEXT,
  outcome TEXT, reason TEXT, score REAL, finished_at REAL);
CREATE UNIQUE INDEX one_open_task ON tasks (validator) WHERE state != 'done';
CREATE INDEX tasks_by_state ON tasks (state, n);
CREATE INDEX tasks_by_id ON tasks (task_id);
CREATE TABLE attempts (
  task INTEGER NOT NULL REFERENCES tasks (n) ON DELETE CASCADE, number INTEGER NOT NULL,
  key TEXT NOT NULL UNIQUE, worker TEXT NOT NULL, boot_id TEXT NOT NULL, seed INTEGER NOT NULL,
  round INTEGER NOT NULL, state TEXT NOT NULL, started_at REAL NOT NULL, finished_at REAL, ply TEXT, spz TEXT,
  report TEXT, signal TEXT, confidence REAL, error TEXT, PRIMARY KEY (task, number)) WITHOUT ROWID;
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, task INTEGER NOT NULL REFERENCES tasks (n) ON DELETE CASCADE, at REAL NOT NULL,
  event TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX events_by_task ON events (task, seq);
CREATE TABLE validators (
  hotkey TEXT PRIMARY KEY, uid INTEGER NOT NULL, ip TEXT NOT NULL, port INTEGER NOT NULL,
  stake REAL NOT NULL, cooldown_until REAL NOT NULL, learned TEXT NOT NULL) WITHOUT ROWID;
"""
# Until here the class of a failure was the beginning of its text ("lost: ..."), a signal carried its score
# ("score:0.65"), and a skip was "outcome/reason".
_TYPED: Final = """
ALTER TABLE attempts ADD COLUMN signal_score REAL;
ALTER TABLE attempts ADD COLUMN failure TEXT;
ALTER TABLE attempts ADD COLUMN enhanced INTEGER NOT NULL DEFAULT 0;
UPDATE attempts SET signal_score = CAST(substr(signal, 7) AS REAL), signal = 'score'
  WHERE signal LIKE 'score:%';
UPDATE attempts SET failure = substr(error, 1, instr(error, ': ') - 1),
  error = substr(error, instr(error, ': ') + 2)
  WHERE substr(error, 1, instr(error, ': ') - 1) IN ('lost', 'broken', 'refused', 'seed', 'prompt');
UPDATE attempts SET failure = 'lost' WHERE failure IS NULL AND (error IS NOT NULL OR state = 'failed');
UPDATE attempts SET enhanced = 1
  WHERE task IN (SELECT n FROM tasks WHERE enhancement != 'none');
ALTER TABLE tasks ADD COLUMN skip_outcome TEXT;
ALTER TABLE tasks ADD COLUMN skip_reason TEXT;
UPDATE tasks SET skip_outcome = skip WHERE skip IS NOT NULL AND instr(skip, '/') = 0;
UPDATE tasks SET skip_outcome = substr(skip, 1, instr(skip, '/') - 1),
  skip_reason = substr(skip, instr(skip, '/') + 1) WHERE instr(skip, '/') > 0;
ALTER TABLE tasks DROP COLUMN skip;
"""
# Until here every task was a validator's, and every generation an exact one.
_DOORS: Final = """
ALTER TABLE tasks ADD COLUMN door TEXT NOT NULL DEFAULT 'validators';
CREATE TABLE assignments (
  task INTEGER PRIMARY KEY REFERENCES tasks (n) ON DELETE CASCADE, node TEXT NOT NULL, token TEXT NOT NULL,
  worker_id TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER NOT NULL, expires_at REAL NOT NULL);
DROP INDEX one_open_task;
CREATE UNIQUE INDEX one_open_task ON tasks (validator) WHERE state != 'done' AND door = 'validators';
CREATE UNIQUE INDEX one_open_assignment ON tasks (door, task_id)
  WHERE state != 'done' AND door != 'validators';
ALTER TABLE attempts ADD COLUMN lane TEXT NOT NULL DEFAULT 'exact';
"""
STEPS: Final = (_FIRST, _TYPED, _DOORS)
"""Step ``n`` leads to schema ``n``, counted from 1."""
SCHEMA_VERSION: Final = len(STEPS)


def version_of(db: sqlite3.Connection) -> int:
    """The schema's number; 0 for an empty file."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection) -> None:
    """Bring an open database (autocommit mode) up to date.

    Raises:
        JournalError: it was written by a newer program.
    """
    check_known(db)
    for number in range(version_of(db), SCHEMA_VERSION):
        with transaction(db):
            # Another process may have been faster.
            if version_of(db) != number:
                continue
            for statement in STEPS[number].split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={number + 1}")


def check_known(db: sqlite3.Connection) -> None:
    """Raises JournalError for the journal of a newer program."""
    version = version_of(db)
    if version > SCHEMA_VERSION:
        raise JournalError(
            f"the journal has schema {version}, this program knows {SCHEMA_VERSION} at most:"
            " it was written by a newer sn17; install that one again, or start with another state folder"
        )


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
