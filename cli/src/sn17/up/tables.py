"""The tables that `sn17 up` and `sn17 status` show."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sn17.up.report import Report, ValidatorRow, WorkerRecord
from sn17_contract.tasks import Outcome

MIB = 1024 * 1024
WIDE = 130
"""Columns of a console that has room for every outcome."""


def render(
    report: Report, events: Sequence[str] = (), *, title: str = "sn17", width: int = WIDE
) -> RenderableType:
    """Validators, workers and the latest events, one under the other."""
    parts: list[RenderableType] = [validator_table(report, width=width), worker_table(report.workers)]
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


def validator_table(report: Report, *, width: int = WIDE) -> Table:
    """One line per validator with every outcome, success and yield side by side.

    On a console narrower than ``WIDE`` the outcomes that never happened are left out, and that is said.
    """
    total = report.total
    shown = [outcome for outcome in Outcome if width >= WIDE or total.outcomes[outcome]]
    hidden = [outcome.value.replace("_", " ") for outcome in Outcome if outcome not in shown]
    table = _table("Submissions", f"none {', '.join(hidden)}" if hidden else None)
    table.add_column("uid", justify="right", no_wrap=True)
    table.add_column("validator")
    for name in ("pulled", *(outcome.value.replace("_", " ") for outcome in shown)):
        table.add_column(name, justify="right")
    for name in ("open", "success", "yield", "score", "p50 s", "p95 s"):
        table.add_column(name, justify="right")
    for row in report.validators:
        table.add_row(*_validator_cells(row, shown))
    if len(report.validators) > 1:
        table.add_section()
        table.add_row(*_validator_cells(total, shown), style="bold")
    return table


def worker_table(workers: Sequence[WorkerRecord]) -> Table:
    """One line per worker."""
    table = _table("Workers")
    table.add_column("worker")
    table.add_column("state")
    for name in ("generations", "gaussians", "peak MiB", "of limit", "restarts"):
        table.add_column(name, justify="right")
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


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


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
