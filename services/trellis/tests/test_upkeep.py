"""What a worker that can take no job, or whose assets have become small, does between two jobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest
from sn17_contract.http import LeaseOwner
from sn17_contract.worker import RecycleHow
from sn17_service import MemoryReading
from sn17_service.drain import DrainLease
from sn17_trellis.guard import Guard, SelfRecycle, Thresholds
from sn17_trellis.model_process.fading import Best
from sn17_trellis.model_process.room import Terms
from sn17_trellis.settings import WorkerSettings
from sn17_trellis.upkeep import Upkeep

LIMIT = 1000
SETTINGS = WorkerSettings.model_construct()
TERMS = Terms(
    limit=LIMIT, refuse_ratio=0.88, fresh_peak=200, rest=250, growth=10, swap_seconds=36.0, job_seconds=20.0
)


class Worker:
    """Service, trust and lives in one, with a clock that is set."""

    stopping: str | None = None
    last_admin_call: float | None = None
    separate = True
    recycling: RecycleHow | None = None
    life_id = "l"
    fatal = False
    degraded: str | None = None
    trusted = True

    def __init__(self, book: Path) -> None:
        self.now, self.used, self.known = 1000.0, 300, TERMS
        self.acts: list[tuple[RecycleHow, str]] = []
        self.canaries: list[bool] = []
        self.idle: list[float | None] = []
        self.drain = DrainLease(self.monotonic)
        guard = Guard(
            Thresholds(SETTINGS.guard_cleanup_ratio, SETTINGS.guard_refuse_ratio),
            enabled=True, read=self.read_memory, cleanup=lambda: None, monotonic=self.monotonic,
        )  # fmt: skip
        recycles = SelfRecycle(
            book, after_seconds=600, interval_seconds=SETTINGS.self_recycle_interval_seconds,
            clock=self.monotonic,
        )  # fmt: skip
        me = cast(Any, self)
        self.upkeep = Upkeep(me, SETTINGS, guard, me, me, recycles, random=lambda: 0.0)

    def monotonic(self) -> float:
        return self.now

    clock = monotonic

    def read_memory(self) -> MemoryReading:
        return MemoryReading(self.used, self.used, LIMIT, {})

    def terms(self) -> Terms:
        return self.known

    def after_job(self, gaussians: int | None, idle_for: float | None) -> None:
        self.idle.append(idle_for)

    def recycle(self, life_id: str, how: RecycleHow, reason: str, *, verify: bool, canary: bool) -> None:
        self.acts.append((how, reason))
        self.canaries.append(canary)

    def stop(self, code: int, reason: str) -> None:
        self.stopping = reason


@pytest.mark.parametrize(
    ("trusted", "tasks", "canary"),
    [
        pytest.param(True, 0, False, id="one passed just now"),
        pytest.param(True, 49, False, id="one passed within so many tasks"),
        pytest.param(True, 50, True, id="so many tasks ago"),
        pytest.param(False, 0, True, id="something speaks against the worker"),
    ],
)
def test_a_life_for_memory_proves_itself_where_no_canary_passed_lately(
    worker: Worker, trusted: bool, tasks: int, canary: bool
) -> None:
    worker.trusted, worker.upkeep.tasks_since_canary = trusted, tasks
    worker.used = 900
    worker.upkeep.job_ended(None)
    assert worker.canaries == [canary]


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path / "book")


def test_a_dead_device_is_given_another_process_at_once_and_then_another_container(worker: Worker) -> None:
    worker.fatal = True
    worker.upkeep.job_ended(None)
    assert worker.acts == [(RecycleHow.REPLACE, "guard: a fatal device error")]
    worker.upkeep.job_ended(None)
    assert worker.stopping == "self_recycle"


def test_what_the_service_holds_ends_with_the_container_and_no_process_is_replaced_for_it(
    worker: Worker,
) -> None:
    worker.used, worker.known = 900, dataclasses.replace(TERMS, freed=0.1)
    worker.upkeep.job_ended(370_000)
    assert (worker.acts, worker.stopping) == ([], "self_recycle")
    worker.stopping = None
    worker.now += SETTINGS.self_recycle_interval_seconds - 1
    worker.upkeep.job_ended(370_000)
    assert ([how for how, _ in worker.acts], worker.stopping) == ([RecycleHow.REPLACE], None)


def test_a_container_that_fills_again_within_minutes_ends_again_if_it_made_assets_meanwhile(
    worker: Worker,
) -> None:
    worker.used, worker.known = 900, dataclasses.replace(TERMS, freed=0.1, service_share=0.9)
    worker.upkeep.job_ended(370_000)
    assert worker.stopping == "self_recycle"
    worker.stopping, worker.used = None, 300
    worker.upkeep.job_ended(None)
    worker.used = 900
    worker.upkeep.job_ended(None)
    assert worker.stopping is None, "without an asset the last end has shown nothing"
    worker.used = 300
    worker.upkeep.job_ended(370_000)
    worker.used = 900
    worker.upkeep.job_ended(370_000)
    assert worker.stopping == "self_recycle"
    worker.stopping, worker.used = None, 300
    worker.known = dataclasses.replace(TERMS, freed=0.1)
    worker.upkeep.job_ended(370_000)
    worker.used = 900
    worker.upkeep.job_ended(370_000)
    assert worker.stopping is None, "a volume in memory outlives the container"


def test_time_without_work_is_counted_where_nothing_else_kept_work_away(worker: Worker) -> None:
    def job(*, after: float) -> None:
        worker.now += after
        worker.upkeep.job_begins()
        worker.now += 20.0
        worker.upkeep.job_ended(370_000)

    job(after=5.0)
    job(after=7.0)
    worker.recycling = RecycleHow.SWAP
    worker.now += 5.0
    worker.upkeep.job_begins()
    job(after=9.0)
    worker.recycling, worker.life_id = None, "m"
    job(after=60.0)
    job(after=0.0)
    worker.drain.hold(LeaseOwner.OPERATOR, "", 60.0)
    worker.upkeep.idle(cast(Any, worker))
    worker.drain.lift(LeaseOwner.OPERATOR)
    job(after=300.0)
    job(after=1.0)
    assert worker.idle == [None, 7.0, 5.0, None, 0.0, None, 1.0]


def test_assets_that_have_become_small_are_a_reason_to_replace_unless_somebody_holds_it(
    worker: Worker,
) -> None:
    worker.known = dataclasses.replace(TERMS, faded=Best(0.4, swap=False))
    worker.used = worker.known.faded_at - 1
    worker.upkeep.job_ended(370_000)
    assert worker.acts == []
    worker.used += 1
    worker.drain.hold(LeaseOwner.OPERATOR, "", 60.0)
    worker.upkeep.job_ended(200_000)
    assert worker.acts == []
    worker.drain.lift(LeaseOwner.OPERATOR)
    worker.upkeep.job_ended(200_000)
    assert [how for how, _ in worker.acts] == [RecycleHow.REPLACE]
