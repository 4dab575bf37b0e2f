"""Journals of older programs: opened, brought up to date, nothing lost; and places that cannot hold one."""

from __future__ import annotations

import errno
import lzma
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sn17_contract.tasks import (
    VALIDATORS,
    Failure,
    GivenUpReason,
    Lane,
    Outcome,
    Signal,
    TaskKind,
    TaskState,
)
from sn17_miner import lock
from sn17_miner.core.learning import Learned
from sn17_miner.core.records import Assignment, ResultSignal, Skip
from sn17_miner.core.timing import Timing
from sn17_miner.journal import migrations
from sn17_miner.journal.journal import Journal
from sn17_miner.journal.reader import JournalError
from sn17_miner.journal.views import list_tasks, open_story

RECORDED = Path(__file__).parent / "data" / "journal-schema1.sqlite.xz"
"""Taken from a running miner of commit de55a71 by SQLite's backup: twelve tasks ended, two under way."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(lzma.decompress(RECORDED.read_bytes()))
    return path


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


KEPT = (
    "SELECT n, task_id, validator, kind, prompt, sent_prompt, enhancement, threshold, throttle, assigned_at,"
    " pulled_at, idle, state, submits, submitted_attempt, submit_time, outcome, reason, score, finished_at"
    " FROM tasks",
    "SELECT task, number, key, worker, boot_id, seed, round, state, started_at, finished_at, ply, spz,"
    " report, confidence FROM attempts",
    "SELECT * FROM events",
    "SELECT * FROM validators",
)


def test_a_journal_of_the_first_schema_loses_nothing(old: Path) -> None:
    before = [rows(old, query) for query in KEPT]
    skips = Counter(row[0] for row in rows(old, "SELECT skip FROM tasks"))
    Journal(old).close()
    assert rows(old, "PRAGMA user_version") == [(migrations.SCHEMA_VERSION,)]
    assert [rows(old, query) for query in KEPT] == before
    journal = Journal(old)
    tasks = journal.tasks(limit=1000)
    assert len(tasks) == len(before[0]) == 14
    unrepairable = Skip(Outcome.GIVEN_UP, GivenUpReason.UNREPAIRABLE)
    assert Counter(task.skip for task in tasks) == {
        None: skips[None],
        unrepairable: skips["given_up/unrepairable"],
    }
    signals = Counter(a.signal and a.signal.kind for task in tasks for a in task.attempts)
    assert signals == {Signal.HEALTHY: 5, Signal.UNREPAIRABLE: 11, None: 2}
    fresh = Learned.fresh(Timing())
    assert all(Learned.load(v.learned, Timing()) != fresh for v in journal.validators())
    journal.close()


def test_what_was_under_way_goes_on(old: Path) -> None:
    journal = Journal(old)
    generated, generating = journal.open_tasks()
    assert (generated.state, generating.state) == (TaskState.GENERATED, TaskState.GENERATING)
    assert journal.payloads() == {"13.1.ply"}
    for task in (generated, generating):
        attempt = task.attempts[0]
        if task is generating:
            journal.attempt_resumed(attempt, "same key")
            attempt = journal.attempt_generated(attempt, ply="14.1.ply", detail="").attempts[0]
        good = ResultSignal(Signal.HEALTHY)
        journal.attempt_fixed(attempt, spz="x.spz", report="{}", signal=good, confidence=0.9, detail="")
        journal.submit_started(task.n, submit_time=1, attempt=1, skip=None, detail="")
        done = journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=0.8, detail="good")
        assert done.outcome is Outcome.ACCEPTED
    assert journal.open_tasks() == []
    again, new = journal.task_pulled(
        task_id="next",
        validator=generated.validator,
        kind=TaskKind.TEXT,
        prompt="a red cube",
        threshold=0.6,
        throttle=30,
        assigned_at=1.0,
    )
    assert (again.n, new) == (15, True)
    journal.close()


def test_an_old_journal_is_read_without_being_changed(old: Path) -> None:
    before = old.read_bytes()
    listed = list_tasks(old, limit=50)
    assert listed.counts == {TaskState.DONE: 12, TaskState.GENERATED: 1, TaskState.GENERATING: 1}
    assert {task.uid for task in listed.tasks} == {0, 1, 2}
    story = open_story(old, 3)
    assert story is not None
    assert story.reason is GivenUpReason.UNREPAIRABLE
    assert old.read_bytes() == before


def first_schema(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    for statement in (*migrations.STEPS[0].split(";\n"), "PRAGMA user_version=1", *statements):
        database.execute(statement)
    database.close()


TASK = (
    "INSERT INTO tasks (n, task_id, validator, kind, prompt, enhancement, threshold, throttle, assigned_at,"
    " pulled_at, state, skip) VALUES (1, 't', 'v', 'text', 'p', 'text', 0.6, 30, 1, 1, 'pulled', {skip})"
)
ATTEMPT = (
    "INSERT INTO attempts (task, number, key, worker, boot_id, seed, round, state, started_at, signal, error)"
    " VALUES (1, 1, 't/1', 'w', 'b', 1, 0, '{state}', 1, {signal}, {error})"
)


@pytest.mark.parametrize(
    ("state", "signal", "error", "expected"),
    [
        ("running", "NULL", "NULL", (None, None, None)),
        ("fixed", "'score:0.65'", "NULL", (ResultSignal(Signal.SCORE, 0.65), None, None)),
        ("fixed", "'fails_checks'", "NULL", (ResultSignal(Signal.FAILS_CHECKS), None, None)),
        ("failed", "NULL", "'lost: no progress: 30 s'", (None, Failure.LOST, "no progress: 30 s")),
        ("failed", "NULL", "'broken: 500: internal'", (None, Failure.BROKEN, "500: internal")),
        ("failed", "NULL", "'refused: busy: later'", (None, Failure.REFUSED, "busy: later")),
        ("failed", "NULL", "'seed: empty_structure: x'", (None, Failure.SEED, "empty_structure: x")),
        ("failed", "NULL", "'prompt: bad_prompt'", (None, Failure.PROMPT, "bad_prompt")),
        ("failed", "NULL", "'something: else'", (None, Failure.LOST, "something: else")),
    ],
)
def test_texts_become_columns(
    tmp_path: Path, state: str, signal: str, error: str, expected: tuple[Any, ...]
) -> None:
    path = tmp_path / "journal.sqlite"
    first_schema(path, TASK.format(skip="NULL"), ATTEMPT.format(state=state, signal=signal, error=error))
    journal = Journal(path)
    (attempt,) = journal.task(1).attempts
    journal.close()
    assert (attempt.signal, attempt.failure, attempt.error) == expected
    assert attempt.enhanced


@pytest.mark.parametrize(
    ("text", "skip"),
    [
        ("'skipped'", Skip(Outcome.SKIPPED)),
        ("'expired'", Skip(Outcome.EXPIRED)),
        ("'given_up/no_worker'", Skip(Outcome.GIVEN_UP, GivenUpReason.NO_WORKER)),
    ],
)
def test_skips_become_columns(tmp_path: Path, text: str, skip: Skip) -> None:
    path = tmp_path / "journal.sqlite"
    first_schema(path, TASK.format(skip=text))
    journal = Journal(path)
    assert journal.task(1).skip == skip
    journal.close()


class Interrupted(sqlite3.Connection):
    """Dies at one statement."""

    fuse = 0

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql.lstrip().startswith(("ALTER", "UPDATE", "PRAGMA user_version=")):
            Interrupted.fuse -= 1
            if Interrupted.fuse == 0:
                raise KeyboardInterrupt
        return super().execute(sql, parameters)


def test_a_crash_anywhere_in_a_migration_leaves_the_old_schema(old: Path) -> None:
    statements = migrations.STEPS[1].count(";\n")
    before = rows(old, "SELECT * FROM tasks")

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, **options, factory=Interrupted)

    for fuse in range(1, statements + 2):
        Interrupted.fuse = fuse
        with pytest.raises(KeyboardInterrupt):
            Journal(old, connect=connect)
        assert rows(old, "PRAGMA user_version") == [(1,)]
        assert rows(old, "SELECT * FROM tasks") == before
    Journal(old, connect=connect).close()
    assert rows(old, "PRAGMA user_version") == [(migrations.SCHEMA_VERSION,)]


# --- places ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a#b", "a?mode=ro", "100%", "%23", "two words", "ü&=+"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    Journal(folder / "journal.sqlite").close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (folder / "journal.sqlite").stat().st_size > 0
    assert list_tasks(folder / "journal.sqlite", limit=1).tasks == ()


def refusing(code: int) -> Callable[[int, int], None]:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    return flock


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named(tmp_path: Path, code: int) -> None:
    with pytest.raises(lock.LockError, match=r"\(\w+\) offers no locks; keep the state on"):
        lock.acquire(tmp_path / "miner.lock", flock=refusing(code))


class NoSharedMemory(sqlite3.Connection):
    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if "journal_mode" in sql:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_SHMMAP"
            raise error
        return super().execute(sql, parameters)


def test_a_journal_on_a_share_says_what_it_needs(tmp_path: Path) -> None:
    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*arguments, **options, factory=NoSharedMemory)

    with pytest.raises(JournalError, match=r"no shared memory: disk I/O error; keep the state on"):
        Journal(tmp_path / "journal.sqlite", connect=connect)


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path: Path) -> None:
    inside = tmp_path / "a b" / "c"
    inside.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    blank = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(f"root / ext4 rw 0 0\nserver:/x {blank} nfs4 rw 0 0\nproc /proc proc rw 0 0\n")
    assert lock.filesystem_of(inside, mounts) == "nfs4"
    assert lock.filesystem_of(tmp_path, mounts) == "ext4"
    assert lock.filesystem_of(tmp_path, tmp_path / "none") == "unknown"


def test_a_journal_without_doors_goes_on_and_takes_gateways_tasks(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    database = sqlite3.connect(path, isolation_level=None)
    for step in migrations.STEPS[:2]:
        for statement in step.split(";\n"):
            database.execute(statement)
    database.execute("PRAGMA user_version=2")
    database.execute(
        "INSERT INTO tasks (n, task_id, validator, kind, prompt, enhancement, threshold, throttle,"
        " assigned_at, pulled_at, state)"
        " VALUES (1, 't', 'v', 'text', 'p', 'none', 0.6, 30, 1, 1, 'generating')"
    )
    database.execute(
        "INSERT INTO attempts (task, number, key, worker, boot_id, seed, round, state, started_at)"
        " VALUES (1, 1, 't/1', 'w', 'b', 1, 0, 'running', 1)"
    )
    database.close()
    journal = Journal(path)
    (task,) = journal.open_tasks()
    assert (task.door, task.assignment, task.attempts[0].lane) == (VALIDATORS, None, Lane.EXACT)
    with pytest.raises(JournalError, match="still has task t open"):
        journal.task_pulled(
            task_id="u",
            validator="v",
            kind=TaskKind.TEXT,
            prompt="p",
            threshold=0.6,
            throttle=30,
            assigned_at=1,
        )

    def offer(door: str, task_id: str, token: str) -> tuple[int, bool]:
        assignment = Assignment("http://node", token, "sn17", "404-3dgs", -7, 601.0)
        got, new = journal.task_offered(
            door, task_id=task_id, kind=TaskKind.TEXT, prompt="p", assignment=assignment, assigned_at=1.0,
            threshold=0.6,
        )  # fmt: skip
        assert got.assignment == assignment
        return got.n, new

    assert [offer("a", "x", "1"), offer("a", "y", "2"), offer("b", "x", "3")] == [
        (2, True),
        (3, True),
        (4, True),
    ]
    assert offer("a", "x", "4") == (2, False)
    assert len(journal.open_tasks()) == 4
    assert journal.open_by_node() == {"http://node": 3}
    journal.close()
