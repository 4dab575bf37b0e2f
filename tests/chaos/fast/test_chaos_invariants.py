"""Each invariant is silent about a history that keeps it and speaks about one that breaks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sn17_chaos.history import (
    Act,
    Assigned,
    Completed,
    History,
    Journalled,
    MemorySample,
    OomKill,
    Recycle,
    Span,
)
from sn17_chaos.invariants import INVARIANTS, check
from sn17_chaos.results import UNDISTURBED, Row, merge, percentile, read, table, write

GOOD = History(
    assigned=[Assigned("a", "v", 10, "accepted", 12), Assigned("b", "v", 20, "dropped")],
    journalled=[
        Journalled("a", "v", 10, "accepted"),
        Journalled("b", "v", 20, "given_up", "validator_dropped"),
    ],
    completed=[Completed("a/1", "w1"), Completed("a/2", "w1"), Completed("b/1", "w2")],
    acts=[Act(5, "w1", "boot-1", "MemoryHigh", unavailable=1, acting=1, budget=1, evidence_age=2)],
    recycles=[Recycle(6, "w1", "boot-1", "memory"), Recycle(9, "w1", "boot-2", "memory")],
    usable=[Span(0, 15), Span(18, 30)],
    evidence_limit=10,
    oom_kills=[OomKill(30, "w1", "life-1")],
    memory=[
        MemorySample(at, "w1", "life-1", share) for at, share in ((20, 0.9), (24, 0.5), (26, 0.7), (29, 0.95))
    ],
    cordon_threshold=0.6,
    sight=7,
)
ACT = GOOD.acts[0]
B = "b"


def with_task(outcome: str, end: str | None, reason: str | None = None, pulled: float = 20) -> History:
    return replace(
        GOOD,
        assigned=[Assigned(B, "v", pulled, outcome)],
        journalled=[Journalled(B, "v", pulled, end, reason)],
    )


def full_since(start: float) -> list[MemorySample]:
    return [MemorySample(start + step, "w1", "life-1", 0.6 + 0.02 * step) for step in range(18)]


BROKEN = {
    "never journalled": ("tasks_lost", replace(GOOD, journalled=[], assigned=[Assigned(B, "v", 20)])),
    "without an end": ("tasks_lost", with_task("open", None)),
    "empty with a worker usable": ("tasks_lost", with_task("skipped", "given_up", "no_worker")),
    "too late with a worker usable": ("tasks_lost", with_task("skipped", "expired")),
    "given up without a submission": ("tasks_lost", with_task("open", "given_up", "answer_lost")),
    "a reason outside the list": ("tasks_lost", with_task("skipped", "given_up", "bad_luck", pulled=16)),
    "an outcome outside the list": ("tasks_lost", with_task("accepted", "vanished")),
    "one key, two generations": ("generated_twice", replace(GOOD, completed=[Completed("a", "w1")] * 2)),
    "two at once": ("beyond_budget", replace(GOOD, acts=[replace(ACT, acting=2, costs=False)])),
    "one while another is away": ("beyond_budget", replace(GOOD, acts=[replace(ACT, unavailable=2)])),
    "one life ended twice": ("recycled_twice", replace(GOOD, recycles=[*GOOD.recycles, GOOD.recycles[0]])),
    "a healthy one ended": ("recycled_twice", replace(GOOD, recycles=[Recycle(6, "w2", "boot-9", None)])),
    "on old evidence": ("acted_on_unknown", replace(GOOD, acts=[replace(ACT, evidence_age=11)])),
    "killed in sight": ("killed_in_sight", replace(GOOD, oom_kills=[OomKill(33, "w1", "life-1")])),
    "killed after a long way up": ("killed_in_sight", replace(GOOD, memory=full_since(12))),
    "killed unseen": ("killed_in_sight", replace(GOOD, memory=[])),
    "killed long after the last look": ("killed_in_sight", replace(GOOD, memory=GOOD.memory[:2], sight=5)),
    "not as before": ("not_recovered", replace(GOOD, recovered=False, unrecovered="the fixer is gone")),
    "by hand": ("not_recovered", replace(GOOD, helped=["restart the miner"])),
}  # fmt: skip


def test_nothing_is_said_about_a_good_history() -> None:
    assert check(GOOD) == []
    assert check(History()) == []


@pytest.mark.parametrize(("invariant", "history"), BROKEN.values(), ids=BROKEN)
def test_a_broken_history_is_found_by_its_invariant_alone(invariant: str, history: History) -> None:
    assert {breach.invariant for breach in check(history)} == {invariant}


def test_every_invariant_has_a_control() -> None:
    assert {invariant for invariant, _ in BROKEN.values()} == set(INVARIANTS)


def test_what_no_worker_could_do_may_end_in_a_reason_of_the_list() -> None:
    assert check(with_task("skipped", "given_up", "no_worker", pulled=16)) == []
    assert check(with_task("skipped", "expired", pulled=16)) == []


def test_faults_from_outside_may_eat_the_budget() -> None:
    dead = replace(ACT, unavailable=3, budget=1, costs=False)
    assert check(replace(GOOD, acts=[dead])) == []


def test_a_kill_that_came_too_quickly_to_be_seen_is_nobodys_fault() -> None:
    assert check(replace(GOOD, memory=full_since(23.5))) == []
    # Another life's memory says nothing about this one.
    other = [replace(sample, incarnation="life-0") for sample in full_since(1)]
    assert check(replace(GOOD, memory=[*other, *GOOD.memory])) == []


def row(fault: str, **values: object) -> Row:
    return Row(fault, "fast", "abcdef0123", "2026-01-02T03:04:05Z", 1, **values)  # type: ignore[arg-type]


def test_table_counts_runs_and_leaves_the_baseline_out_of_the_sum(tmp_path: Path) -> None:
    broken = row("worker killed")
    broken.add(tasks=4, breaches=check(BROKEN["by hand"][1]), recovery=3.0)
    broken.add(tasks=5, breaches=check(BROKEN["one key, two generations"][1]), recovery=None)
    broken.add(tasks=5, breaches=check(BROKEN["without an end"][1]), recovery=7.0)
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    write(first, [broken], seed=1)
    write(second, [row("worker killed", runs=2, recovery=[1.0]), row(UNDISTURBED, runs=9)], seed=2)
    rows = merge([*read(first), *read(second)])
    assert [(r.fault, r.runs) for r in rows] == [(UNDISTURBED, 9), ("worker killed", 5)]
    lines = table(rows).splitlines()
    assert [cell.strip() for cell in lines[3].split("|")][1:10] == [
        "worker killed", "fast", "5", "14", "1", "1", "1", "3.0", "7.0",
    ]  # fmt: skip
    assert lines[-1].split("|")[3].strip() == "5"
    assert "a person had to" in rows[1].notes[0]


def test_percentile_is_nearest_rank() -> None:
    values = [float(n) for n in range(1, 21)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile([], 0.5)) == (10, 19, None)
