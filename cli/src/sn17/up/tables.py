"""The tables that `sn17 up` and `sn17 status` show."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sn17_service.contract import Outcome

from .report import Report, ValidatorRow, WorkerRecord

MIB = 1024 * 1024


def render(report: Report, events: Sequence[str] = (), *, title: str = "sn17") -> RenderableType:
    """Validators, workers and the latest events, one under the other."""
    parts: list[RenderableType] = [validator_table(report), worker_table(report.workers)]
    if events:
        parts.append(Panel(Text("\n".join(events)), title="events", title_align="left", border_style="dim"))
    return Group(Text(title, style="bold"), *parts)


def validator_table(report: Report) -> Table:
    """One line per validator with every outcome, success and yield side by side."""
    table = Table(title="Submissions", title_justify="left", title_style="bold", header_style="bold")
    table.add_column("validator")
    table.add_column("pulled", justify="right")
    for outcome in Outcome:
        table.add_column(outcome.value.replace("_", " "), justify="right")
    for name in ("open", "success", "yield", "score", "p50 s", "p95 s"):
        table.add_column(name, justify="right")
    for row in report.validators:
        table.add_row(*_validator_cells(row))
    if len(report.validators) > 1:
        table.add_section()
        table.add_row(*_validator_cells(report.total), style="bold")
    return table


def worker_table(workers: Sequence[WorkerRecord]) -> Table:
    """One line per worker."""
    table = Table(title="Workers", title_justify="left", title_style="bold", header_style="bold")
    table.add_column("worker")
    table.add_column("state")
    for name in ("generations", "gaussians (mean)", "memory peak MiB", "of limit", "restarts"):
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
            str(worker.restarts),
        )
    return table


def _validator_cells(row: ValidatorRow) -> list[str]:
    return [
        row.validator[:8],
        str(row.pulled),
        *(str(row.outcomes[outcome]) for outcome in Outcome),
        str(row.open),
        _number(row.success, "{:.0%}"),
        _number(row.yield_, "{:.0%}"),
        _number(row.mean_score, "{:.2f}"),
        _number(row.delivery_p50, "{:.1f}"),
        _number(row.delivery_p95, "{:.1f}"),
    ]


def _number(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
