"""Counting: success, yield, and tasks that nobody can account for."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sn17.up.report import TaskRecord, WorkerRecord, build, percentile
from sn17.up.tables import render, validator_table
from sn17_contract.tasks import Outcome

A, B = "5Alice000", "5Bob00000"


def record(index: int, outcome: Outcome | None, validator: str = A, score: float | None = None) -> TaskRecord:
    return TaskRecord(
        f"t{index}",
        validator,
        "text",
        outcome,
        score=score,
        delivery_seconds=float(index) if outcome else None,
    )


def test_skipping_raises_success_but_not_yield() -> None:
    tasks = [
        record(1, Outcome.ACCEPTED, score=0.8),
        record(2, Outcome.REJECTED),
        record(3, Outcome.SKIPPED),
        record(4, Outcome.SKIPPED),
    ]
    (row,) = build(tasks, [], validators=[A], assigned={}).validators
    assert row.success == 0.5
    assert row.yield_ == 0.25
    assert row.mean_score == 0.8


def test_a_task_without_an_end_is_unaccounted() -> None:
    tasks = [record(1, Outcome.ACCEPTED), record(2, None, B)]
    report = build(tasks, [], validators=[A, B], assigned={"t1": A, "t2": B, "t3": B})
    assert report.unaccounted == ("t2", "t3")
    assert report.total.open == 1


def test_nothing_pulled_has_no_ratio_at_all() -> None:
    (row,) = build([], [], validators=[A], assigned={}).validators
    assert row.success is None
    assert row.yield_ is None


@given(st.lists(st.tuples(st.sampled_from([*Outcome, None]), st.sampled_from([A, B])), max_size=60))
def test_rows_add_up(drawn: list[tuple[Outcome | None, str]]) -> None:
    tasks = [record(i, outcome, validator) for i, (outcome, validator) in enumerate(drawn)]
    report = build(tasks, [], validators=[A, B], assigned={t.task_id: t.validator for t in tasks})
    total = report.total
    assert total.pulled == len(tasks) == total.open + sum(total.outcomes.values())
    assert len(report.unaccounted) == total.open
    for row in (*report.validators, total):
        assert row.success is None or 0 <= (row.yield_ or 0) <= row.success <= 1 or row.open


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_percentile_is_one_of_the_values(values: list[float]) -> None:
    assert percentile(values, 0.5) in values
    assert percentile(values, 1.0) == max(values)


def test_the_tables_show_unknown_as_a_dash() -> None:
    worker = WorkerRecord("trellis-1", "ready", 0, None, 0, None, 0)
    report = build([record(1, None)], [worker], validators=[A], assigned={})
    console = Console(width=160, record=True, file=None)
    with console.capture() as capture:
        console.print(render(report, ["trellis-1 was cordoned"]))
    text = capture.get()
    assert "5Alice00" in text
    assert "trellis-1 was cordoned" in text
    assert "nan" not in text


def test_validators_are_shown_by_uid_where_it_is_known() -> None:
    tasks = [record(1, Outcome.ACCEPTED), replace(record(2, Outcome.ACCEPTED), validator=B, uid=27)]
    report = build(tasks, [], validators=[A, B], assigned={})
    assert [row.uid for row in report.validators] == [None, 27]
    console = Console(width=200, record=True)
    console.print(validator_table(report))
    assert f"27   {B[:8]}" in console.export_text()
