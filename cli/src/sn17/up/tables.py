"""The tables that `sn17 up` and `sn17 status` show."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.text import Text
from sn17.fitted import Column, FittedTable
from sn17.up.report import Report, ValidatorRow, WorkerRecord
from sn17_contract.tasks import Outcome
from sn17_contract.text import neutralise

_OUTCOME_RANKS = {Outcome.ACCEPTED: 0, Outcome.REJECTED: 1}
MIB = 1024 * 1024
WIDE = 130
"""Columns of a console that has room for every outcome."""


def render(
    report: Report, events: Sequence[str] = (), *, title: str = "sn17", width: int = WIDE
) -> RenderableType:
    """Validators, workers and the latest events, one under the other."""
    parts: list[RenderableType] = [validator_table(report, width=width), worker_table(report.workers)]
    if report.waiting:
        parts.append(Text(f"The miner asks for no task: {neutralise(report.waiting)}", style="yellow"))
    if events:
        parts.append(
            Panel(
                Text("\n".join(events), no_wrap=True, overflow="ellipsis"),
                title="events",
                title_align="left",
                border_style="dim",
            )
        )
    return Group(Text(title, style="bold"), *parts)


def fitted(report: Report, events: Sequence[str], console: Console) -> RenderableType:
    """As :func:`render`, in the console's height: as many events as fit, the newest first."""
    newest = list(reversed(events))
    parts = render(report, width=console.width)
    used = len(console.render_lines(parts, pad=False))
    room = console.height - used - 3
    return render(report, newest[: max(1, room)], width=console.width)


def validator_table(report: Report, *, width: int = WIDE) -> FittedTable:
    """One line per validator with every outcome, success and yield side by side.

    On a console narrower than ``WIDE`` the outcomes that never happened are left out, and that is said.
    """
    total = report.total
    shown = [outcome for outcome in Outcome if width >= WIDE or total.outcomes[outcome]]
    hidden = [outcome.value.replace("_", " ") for outcome in Outcome if outcome not in shown]
    columns = (
        Column("uid", right=True, rank=4),
        Column("validator"),
        Column("pulled", right=True),
        *(
            Column(outcome.value.replace("_", " "), right=True, rank=_OUTCOME_RANKS.get(outcome, 3))
            for outcome in shown
        ),
        Column("open", right=True, rank=2),
        Column("success", right=True),
        Column("yield", right=True),
        Column("score", right=True, rank=5),
        Column("p50 s", right=True, rank=7),
        Column("p95 s", right=True, rank=6),
    )
    table = _table("Submissions", columns, f"none {', '.join(hidden)}" if hidden else None)
    for row in report.validators:
        table.add_row(*_validator_cells(row, shown))
    if len(report.validators) > 1:
        table.add_row(*_validator_cells(total, shown), style="bold", section=True)
    return table


def worker_table(workers: Sequence[WorkerRecord]) -> FittedTable:
    """One line per worker."""
    columns = (
        Column("worker"),
        Column("state"),
        Column("generations", right=True, rank=1),
        Column("gaussians", right=True, rank=2),
        Column("peak MiB", right=True, rank=4),
        Column("of limit", right=True),
        Column("restarts", right=True, rank=3),
    )
    table = _table("Workers", columns)
    for worker in workers:
        limit = worker.memory_limit_bytes
        table.add_row(
            worker.name,
            worker.state,
            str(worker.generations),
            _number(worker.gaussians_mean, "{:,.0f}"),
            f"{worker.memory_peak_bytes / MIB:,.0f}",
            f"{worker.memory_peak_bytes / limit:.0%}" if limit else "-",
            _number(worker.restarts, "{}"),
        )
    return table


def _table(title: str, columns: Sequence[Column], caption: str | None = None) -> FittedTable:
    style = {
        "title": title,
        "title_justify": "left",
        "title_style": "bold",
        "caption": caption,
        "caption_justify": "left",
        "header_style": "bold",
        "box": box.SIMPLE_HEAD,
        "pad_edge": False,
    }
    return FittedTable(columns, style=style)


def _validator_cells(row: ValidatorRow, shown: Sequence[Outcome]) -> list[str]:
    return [
        "" if row.uid is None else str(row.uid),
        row.validator[:8],
        str(row.pulled),
        *(str(row.outcomes[outcome]) for outcome in shown),
        str(row.open),
        _number(row.success, "{:.0%}"),
        _number(row.yield_, "{:.0%}"),
        _number(row.mean_score, "{:.2f}"),
        _number(row.delivery_p50, "{:.1f}"),
        _number(row.delivery_p95, "{:.1f}"),
    ]


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
