"""Tasks as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text
from sn17_contract.tasks import VALIDATORS, AttemptView, Tally, TaskView, Window
from sn17_contract.text import neutralise

from sn17.fitted import Column, FittedTable

_COLOURS = {
    "accepted": "green",
    "rejected": "red",
    "given_up": "red",
    "expired": "red",
    "unvalidated": "yellow",
}


def task_table(tasks: Iterable[TaskView]) -> FittedTable:
    """Newest first."""
    columns = (
        Column("#", right=True),
        Column("pulled", rank=3),
        Column("uid", right=True, rank=1),
        Column("from", rank=4),
        Column("kind", rank=5),
        Column("prompt", rank=2, shortens=True),
        Column("outcome"),
        Column("score", right=True),
        Column("seconds", right=True),
        Column("seeds", right=True, rank=6),
        Column("sent", right=True, rank=7),
        Column("lane", rank=8),
    )
    table = FittedTable(columns, style={"title": "Tasks"})
    for task in tasks:
        table.add_row(
            str(task.n),
            _time(task.pulled_at),
            _uid(task.uid) if task.door == VALIDATORS else "",
            _from(task),
            task.kind,
            neutralise(task.prompt),
            _outcome(task),
            "-" if task.score is None else f"{task.score:.3f}",
            "-" if task.finished_at is None else f"{task.finished_at - task.pulled_at:.1f}",
            str(len(task.attempts)),
            str(task.submits),
            _lane(task),
        )
    return table


def window_table(windows: Iterable[Window]) -> FittedTable:
    """Success and yield side by side, and what became of the rest; every gateway by itself."""
    columns = (
        Column("hours", right=True),
        Column("uid", right=True, rank=1),
        Column("from", rank=3),
        Column("ended", right=True),
        Column("success", right=True),
        Column("yield", right=True),
        Column("in time", right=True, rank=2),
        Column("outcomes", rank=4, shortens=True),
        Column("reasons", rank=5, shortens=True),
    )
    table = FittedTable(columns, style={"title": "Last hours"})
    for window in windows:
        table.add_row(str(window.hours), "", "validators", *_figures(window))
        for own in window.validators:
            table.add_row("", _uid(own.uid), own.validator[:8], *_figures(own))
        for gateway in window.gateways:
            table.add_row("", "", f"gateway {neutralise(gateway.door)}", *_figures(gateway))
    return table


def _figures(tally: Tally) -> Iterator[str]:
    yield str(tally.ended)
    yield from (_share(share) for share in (tally.success, tally.yield_, tally.in_time))
    yield from (_counts(tally.outcomes), _counts(tally.reasons))


def _uid(uid: int | None) -> str:
    return "?" if uid is None else str(uid)


def _from(task: TaskView) -> str:
    """The validator's hotkey, or the gateway's name."""
    return neutralise(task.validator[:8] if task.door == VALIDATORS else task.door)


def _lane(task: TaskView) -> str:
    """Of the last generation; a faster lane is never silent."""
    return task.attempts[-1].lane if task.attempts else "-"


def story(task: TaskView) -> Iterator[RenderableType]:
    """A head, the generations, and every event with the seconds since the pull."""
    who = f"uid {_uid(task.uid)} {neutralise(task.validator)}"
    if task.door != VALIDATORS:
        who = f"gateway {neutralise(task.door)}"
    yield Text.assemble(
        (f"Task {task.n}", "bold"), f" {neutralise(task.task_id)}: {task.kind} from {who}, ", _outcome(task)
    )
    yield f"  prompt: {neutralise(task.prompt)}" + (
        f" (enhanced: {task.enhancement})" if task.enhancement != "none" else ""
    )
    for attempt in task.attempts:
        took = "-" if attempt.finished_at is None else f"{attempt.finished_at - attempt.started_at:.1f} s"
        found = neutralise(_found(attempt))
        where = neutralise(f"{attempt.key} on {attempt.worker}")
        how = f"seed {attempt.seed}, {attempt.lane} lane"
        yield f"  generation {where}: {attempt.state}, {took}, {how}. {found}"
    table = FittedTable(
        (Column("s", right=True), Column("event"), Column("why", wraps=True)),
        style={"box": None, "pad_edge": False},
    )
    for event in task.events or ():
        table.add_row(f"{event.at - task.pulled_at:.2f}", event.event, neutralise(event.detail))
    yield table


def _found(attempt: AttemptView) -> str:
    if attempt.failure is not None:
        return f"{attempt.failure}: {attempt.error}"
    if attempt.signal is None:
        return ""
    return attempt.signal if attempt.score is None else f"{attempt.signal} {attempt.score:.2f}"


def _outcome(task: TaskView) -> Text:
    if task.outcome is None:
        return Text(task.state, style="cyan")
    text = task.outcome if task.reason is None else f"{task.outcome}: {task.reason}"
    return Text(text, style=_COLOURS.get(task.outcome, ""))


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda i: -i[1])) or "-"
