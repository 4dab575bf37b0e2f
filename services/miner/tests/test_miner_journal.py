"""The journal against a model, with a crash at any statement, and against a real kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sn17_contract.tasks import AttemptState, Failure, GivenUpReason, Outcome, Signal, TaskKind, TaskState
from sn17_miner.core.records import ResultSignal, Skip, Task, ValidatorRecord
from sn17_miner.journal.journal import Journal, job_key
from sn17_miner.journal.reader import Ended, JournalError

RECORD = ValidatorRecord("validator0", 3, "10.0.0.1", 8000, 5000.0, 1234.0, "{}")


def pulled(journal: Journal, task_id: str = "t1", validator: str = "validator0") -> Task:
    return journal.task_pulled(
        task_id=task_id,
        validator=validator,
        kind=TaskKind.TEXT,
        prompt="a red cube",
        threshold=0.6,
        throttle=30,
        assigned_at=1.0,
    )[0]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.sqlite")


def test_the_whole_way_of_a_task(journal: Journal) -> None:
    task = pulled(journal)
    attempt = journal.attempt_started(task.n, worker="w0", boot_id="b", seed=7, round_=0)
    assert attempt.key == "t1/1"
    assert journal.task(task.n).running == attempt
    task = journal.attempt_generated(attempt, ply="1.1.ply", detail="60000 gaussians")
    assert journal.payloads() == {"1.1.ply"}
    generated = task.unfixed
    assert generated is not None
    task = journal.attempt_fixed(
        generated,
        spz="1.1.spz",
        report="{}",
        signal=ResultSignal(Signal.HEALTHY),
        confidence=0.9,
        detail="healthy",
    )
    assert task.best is not None
    assert journal.payloads() == {"1.1.spz"}
    journal.submit_started(task.n, submit_time=5, attempt=1, skip=None, detail="first")
    task = journal.finished(
        task.n, outcome=Outcome.ACCEPTED, reason=None, score=0.8, detail="0.8", validator=RECORD
    )
    assert (task.state, task.score, journal.payloads()) == (TaskState.DONE, 0.8, set())
    assert journal.validators() == [RECORD]
    assert [event.event for event in journal.events(task.n)] == [
        "pulled",
        "generate",
        "generated",
        "fixed",
        "submit",
        "accepted",
    ]
    assert journal.counts() == {"done": 1}
    assert journal.outcomes(0) == [Ended("validators", "validator0", Outcome.ACCEPTED, None, 1)]


def test_the_same_task_again_is_not_a_second_one(journal: Journal) -> None:
    first = pulled(journal)
    again, new = journal.task_pulled(
        task_id="t1",
        validator="validator0",
        kind=TaskKind.TEXT,
        prompt="a red cube",
        threshold=0.6,
        throttle=30,
        assigned_at=9.0,
    )
    assert (again.n, new) == (first.n, False)


def test_never_two_open_tasks_at_one_validator(journal: Journal) -> None:
    pulled(journal)
    with pytest.raises(JournalError, match="still has task t1 open"):
        pulled(journal, "t2")


def test_keys_are_never_used_twice_even_for_the_same_task_elsewhere_or_again(journal: Journal) -> None:
    first = pulled(journal)
    keys = [journal.attempt_started(first.n, worker="w", boot_id="b", seed=1, round_=0).key]
    second = pulled(journal, validator="validator1")
    keys.append(journal.attempt_started(second.n, worker="w", boot_id="b", seed=1, round_=0).key)
    journal.finished(
        first.n, outcome=Outcome.GIVEN_UP, reason=GivenUpReason.VALIDATOR_DROPPED, score=None, detail=""
    )
    again = pulled(journal)
    keys.append(journal.attempt_started(again.n, worker="w", boot_id="b", seed=1, round_=0).key)
    assert keys == ["t1/1", "t1/2", "t1/3"]


@pytest.mark.parametrize("task_id", ["", "a\r\nX-Evil: 1", "../../etc/passwd", "x" * 500, "ünïcode", "a b"])
def test_odd_task_ids_make_harmless_keys(task_id: str) -> None:
    assert len(job_key(task_id, 1)) == 34
    assert job_key(task_id, 1).isascii()


def test_transitions_that_do_not_fit_are_refused_and_change_nothing(journal: Journal) -> None:
    task = pulled(journal)
    attempt = journal.attempt_started(task.n, worker="w", boot_id="b", seed=1, round_=0)
    before = journal.task(task.n)
    with pytest.raises(JournalError):
        journal.attempt_started(task.n, worker="w", boot_id="b", seed=1, round_=0)
    with pytest.raises(JournalError):
        journal.attempt_fixed(
            attempt, spz="s", report="{}", signal=ResultSignal(Signal.HEALTHY), confidence=1, detail=""
        )
    with pytest.raises(JournalError):
        journal.attempt_generated(replace(attempt, number=9), ply="p", detail="")
    assert journal.task(task.n) == before
    journal.finished(task.n, outcome=Outcome.EXPIRED, reason=None, score=None, detail="")
    with pytest.raises(JournalError):
        journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=1, detail="")


def test_the_best_result_is_handed_in_and_a_failed_seed_keeps_it(journal: Journal) -> None:
    task = pulled(journal)
    for number, confidence in ((1, 0.5), (2, 0.7), (3, 0.6)):
        attempt = journal.attempt_started(task.n, worker="w", boot_id="b", seed=number, round_=number)
        journal.attempt_generated(attempt, ply=f"{number}.ply", detail="")
        generated = journal.task(task.n).unfixed
        assert generated is not None
        journal.attempt_fixed(
            generated,
            spz=f"{number}.spz",
            report="{}",
            signal=ResultSignal(Signal.SCORE, 0.5),
            confidence=confidence,
            detail="",
        )
    attempt = journal.attempt_started(task.n, worker="w", boot_id="b", seed=4, round_=4)
    task = journal.attempt_failed(attempt, Failure.SEED, "empty_structure")
    assert task.state is TaskState.FIXED
    assert task.best is not None
    assert task.best.number == 2
    assert task.rounds == 4


def test_image_prompts_are_not_kept_after_the_answer(journal: Journal) -> None:
    task, _ = journal.task_pulled(
        task_id="i",
        validator="v",
        kind=TaskKind.IMAGE,
        prompt="iVBOR" * 1000,
        threshold=0.6,
        throttle=30,
        assigned_at=1,
    )
    assert "iVBOR" not in task.log_id
    done = journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=1, detail="")
    assert done.prompt == ""


def test_retention_keeps_open_tasks_and_the_newest(tmp_path: Path) -> None:
    now = 1000.0
    journal = Journal(tmp_path / "j", clock=lambda: now)
    still_open = pulled(journal, "open", "validator9")
    for n in range(10):
        task = pulled(journal, f"t{n}")
        journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=1, detail="")
    assert journal.prune(max_age=100, max_tasks=4) == 6
    now = 1200.0
    assert journal.prune(max_age=100, max_tasks=4) == 4
    assert [task.n for task in journal.tasks()] == [still_open.n]
    assert journal.events(2) == []


def test_validators_that_left_are_forgotten_unless_they_wait_for_a_result(journal: Journal) -> None:
    for n in range(3):
        journal.save_validator(replace(RECORD, hotkey=f"validator{n}"))
    pulled(journal, validator="validator1")
    assert journal.forget_validators(frozenset({"validator0"})) == 1
    assert {record.hotkey for record in journal.validators()} == {"validator0", "validator1"}


def test_filters_take_beginnings_literally(journal: Journal) -> None:
    pulled(journal, "aaa", "v1")
    pulled(journal, "a%b", "v2")
    assert [task.task_id for task in journal.tasks(task_id="a%")] == ["a%b"]
    assert len(journal.tasks(state="pulled", validator="v")) == 2


def test_a_reader_beside_the_miner(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    pulled(journal)
    reader = Journal(tmp_path / "j", readonly=True)
    assert len(reader.tasks()) == 1
    with pytest.raises(sqlite3.OperationalError):
        pulled(reader, validator="v2")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "j").execute("PRAGMA user_version=99")
    with pytest.raises(JournalError, match="schema 99"):
        Journal(tmp_path / "j")


# --- model with crashes ---------------------------------------------------------------------------


class Crash(BaseException):
    """The process dies here."""


class Fuse:
    left: int | None = None


class DyingConnection(sqlite3.Connection):
    """Dies before its n-th statement, as a process that is killed between two of them."""

    fuse = Fuse()

    def execute(self, *args: Any) -> sqlite3.Cursor:
        if self.fuse.left is not None:
            self.fuse.left -= 1
            if self.fuse.left < 0:
                raise Crash
        return super().execute(*args)


class JournalMachine(RuleBasedStateMachine):
    """Any transition at any time, each possibly cut short: afterwards the disk holds the old or the new."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.counter = 0
        self.done: set[int] = set()
        self.keys: set[str] = set()
        self._open()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.journal.close()
            self.folder.cleanup()

    def _open(self) -> None:
        DyingConnection.fuse.left = None

        def connect(*args: Any, **options: Any) -> sqlite3.Connection:
            return sqlite3.connect(*args, **options, factory=DyingConnection)

        self.journal = Journal(Path(self.folder.name) / "j", connect=connect)

    def _dump(self) -> tuple[Any, ...]:
        db = sqlite3.connect(Path(self.folder.name) / "j")
        try:
            return tuple(
                tuple(db.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall())
                for table, columns in (
                    ("tasks", "n, state, submits, outcome"),
                    ("attempts", "task, number, state, ply, spz"),
                    ("events", "seq, event"),
                    ("validators", "hotkey, cooldown_until"),
                )
            )
        finally:
            db.close()

    def _apply(self, fuse: int | None, name: str, *args: Any, **options: Any) -> Any:
        before = self._dump()
        DyingConnection.fuse.left = fuse
        try:
            result = getattr(self.journal, name)(*args, **options)
        except JournalError:
            DyingConnection.fuse.left = None
            assert self._dump() == before, "a refused transition left a trace"
            return None
        except Crash:
            self.journal.close()
            self._open()
            after = self._dump()
            if after != before:
                # The only other state there may be: the whole transition. Its event is its last part.
                assert len(after[2]) == len(before[2]) + 1 or name == "save_validator"
            return None
        DyingConnection.fuse.left = None
        assert self._dump() != before or name == "save_validator", "acknowledged, but not on disk"
        return result

    fuses = st.one_of(st.none(), st.integers(0, 9))

    @rule(fuse=fuses, validator=st.sampled_from(["v1", "v2"]), again=st.booleans())
    def pull(self, fuse: int | None, validator: str, again: bool) -> None:
        self.counter += not again
        self._apply(
            fuse,
            "task_pulled",
            task_id=f"t{self.counter}",
            validator=validator,
            kind=TaskKind.TEXT,
            prompt="p",
            threshold=0.6,
            throttle=30.0,
            assigned_at=0.0,
        )

    def _any(self, data: st.DataObject) -> Task | None:
        tasks = self.journal.tasks(limit=6)
        return data.draw(st.sampled_from(tasks)) if tasks else None

    @rule(
        fuse=fuses,
        data=st.data(),
        step=st.sampled_from(["start", "generated", "failed", "fixed", "submit", "finish", "cooldown"]),
    )
    def step(self, fuse: int | None, data: st.DataObject, step: str) -> None:
        task = self._any(data)
        if task is None:
            return
        if step == "start":
            attempt = self._apply(fuse, "attempt_started", task.n, worker="w", boot_id="b", seed=1, round_=0)
            if attempt is not None:
                assert attempt.key not in self.keys, "an idempotency key was handed out twice"
                self.keys.add(attempt.key)
        elif step == "generated" and task.running:
            self._apply(fuse, "attempt_generated", task.running, ply=f"{task.n}.ply", detail="")
        elif step == "failed" and (attempt := task.running or task.unfixed):
            self._apply(fuse, "attempt_failed", attempt, Failure.LOST, "gone")
        elif step == "fixed" and task.unfixed:
            self._apply(
                fuse,
                "attempt_fixed",
                task.unfixed,
                spz=f"{task.n}.spz",
                report="{}",
                signal=ResultSignal(Signal.SCORE, 0.5),
                confidence=0.5,
                detail="",
            )
        elif step == "submit":
            best = task.best
            self._apply(
                fuse,
                "submit_started",
                task.n,
                submit_time=1,
                attempt=best.number if best else None,
                skip=None if best else Skip(Outcome.GIVEN_UP, GivenUpReason.NO_WORKER),
                detail="",
            )
        elif step == "finish":
            done = self._apply(
                fuse,
                "finished",
                task.n,
                outcome=Outcome.ACCEPTED,
                reason=None,
                score=1.0,
                detail="",
                validator=replace(RECORD, hotkey=task.validator),
            )
            if done is not None:
                assert task.n not in self.done, "a task ended twice"
                self.done.add(task.n)
        elif step == "cooldown":
            self._apply(
                fuse,
                "save_validator",
                replace(RECORD, hotkey=task.validator, cooldown_until=float(len(self.keys) + 1)),
            )

    @rule()
    def restart(self) -> None:
        self.journal.close()
        self._open()

    @invariant()
    def consistent(self) -> None:
        if not hasattr(self, "journal"):
            return
        tasks = self.journal.tasks(limit=1000)
        held = [task.validator for task in tasks if task.state is not TaskState.DONE]
        assert len(held) == len(set(held)), "two open tasks at one validator"
        assert {task.n for task in tasks if task.state is TaskState.DONE} >= self.done
        for task in tasks:
            running = [a for a in task.attempts if a.state is AttemptState.RUNNING]
            assert len(running) <= 1
            if task.state is TaskState.GENERATING:
                assert running
            if task.state is TaskState.GENERATED:
                assert task.unfixed is not None
                assert task.unfixed.ply in self.journal.payloads()


class TestJournal(JournalMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


@pytest.mark.slow
@pytest.mark.skipif("SN17_LONG" not in os.environ, reason="the long form: make test-long")
class TestJournalLong(JournalMachine.TestCase):  # type: ignore[misc,valid-type]
    settings = settings(max_examples=1000, stateful_step_count=100, deadline=None)


WRITER = """
import sys
from pathlib import Path
from sn17_contract.tasks import Outcome, TaskKind
from sn17_miner.journal.journal import Journal
journal = Journal(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    task, _ = journal.task_pulled(
        task_id=f"t{n}", validator="v", kind=TaskKind.TEXT, prompt="p", threshold=0.6, throttle=30,
        assigned_at=0,
    )
    print("pulled", task.n, flush=True)
    attempt = journal.attempt_started(task.n, worker="w", boot_id="b", seed=1, round_=0)
    print("generating", task.n, flush=True)
    journal.finished(task.n, outcome=Outcome.ACCEPTED, reason=None, score=1, detail="")
    print("done", task.n, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 3, 50])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().split() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        said += [line.split() for line in process.stdout if line.endswith("\n")]
    journal = Journal(path)
    order = ["pulled", "generating", "done"]
    for state, n in said:
        assert order.index(journal.task(int(n)).state.value) >= order.index(state)
    assert len(journal.open_tasks()) <= 1
