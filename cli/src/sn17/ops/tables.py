"""Explanations and reports for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text
from sn17_contract.explain import Explanation
from sn17_contract.replay import ReplayAnswer, ReplayReport

from sn17.fitted import Column, FittedTable

COLOURS = {"Ok": "green", "Breach": "red", "Dwell": "yellow", "Unknown": "magenta", "Resting": "cyan"}
SHOWN_ACTIONS = 50


def explanation(found: Explanation) -> Iterator[RenderableType]:
    """One worker as the operator sees it."""
    yield Text.assemble(
        (found.pod, "bold"),
        f" on {found.node or '-'}: {found.state}, verdict {found.verdict}, strategy {found.strategy}",
    )
    if found.message:
        yield Text(found.message)
    table = FittedTable(
        (
            Column("RULE"),
            Column("OUTCOME"),
            Column("VALUE", right=True),
            Column("THRESHOLD", right=True, rank=1),
            Column("SAMPLE AGE", right=True, rank=3),
            Column("DWELL LEFT", right=True, rank=2),
            Column("WHY", wraps=True),
        )
    )
    for rule in found.rules:
        table.add_row(
            rule.rule,
            Text(rule.outcome, style=COLOURS.get(rule.outcome, "")),
            _number(rule.value),
            _number(rule.threshold),
            _seconds(rule.sample_age_seconds),
            _seconds(rule.dwell_left_seconds or None),
            rule.message,
        )
    yield table
    budget = found.budget
    yield Text(
        f"budget: {budget.unavailable} of {budget.expected} out of service, {budget.in_flight} being "
        f"remediated, {budget.max_unavailable} may be; quality verdicts: {budget.quality_verdicts}, "
        f"{budget.max_unhealthy} may be"
    )
    yield Text.assemble("next: ", (found.next, "bold"))
    yield Text("queries:")
    for query in dict.fromkeys(query for rule in found.rules for query in rule.queries):
        yield Text(f"  {query}", style="dim")


def report_tables(answer: ReplayAnswer) -> RenderableType:
    """What a replay found: one summary of all specs, then each by itself."""
    parts: list[RenderableType] = []
    if len(answer.reports) > 1:
        numbers = ("ACTIONS", "SWAPS", "LOST", "SHORT-CIRCUITS", "HELD BACK")
        columns = (Column("SPEC", wraps=True), *(Column(name, right=True) for name in numbers))
        compared = FittedTable(columns, style={"title": "What if"})
        for report in answer.reports:
            swaps = sum(action.act == "Swap" for action in report.actions)
            held = sum(report.held_back.values())
            lost = f"{report.lost_seconds:,.0f} s"
            figures = (len(report.actions), swaps, lost, report.short_circuits, held)
            compared.add_row(report.spec, *map(str, figures))
        parts.append(compared)
    return Group(*parts, *(part for report in answer.reports for part in _report(report)))


def _report(report: ReplayReport) -> Iterator[RenderableType]:
    total = sum(report.verdicts.values()) or 1
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in sorted(report.verdicts.items()))
    span = f"{report.start} to {report.end}"
    yield Text(f"{report.spec}, {span}: {report.workers} workers, {report.ticks} ticks; {shares}")
    numbers = ("ACTIONS", "PER WORKER AND DAY", "SPARED", "SPENT", "EARNED")
    rates = FittedTable(
        (Column("RULE"), *(Column(name, right=True) for name in numbers)),
        style={"title": "What it would have done, and what that earns of a worker's time"},
    )
    for rule, rate in report.actions_per_worker_and_day.items():
        actions = [action for action in report.actions if action.rule == rule]
        spared, spent = (
            sum(getattr(a, name) for a in actions) for name in ("spared_seconds", "spent_seconds")
        )
        minutes = (f"{spared / 60:.0f} min", f"{spent / 60:.0f} min", f"{(spared - spent) / 60:+.0f} min")
        rates.add_row(rule, str(len(actions)), f"{rate:.3f}", *minutes)
    if not report.actions:
        rates.add_row("none", "0", "0", "-", "-", "-")
    yield rates
    if report.actions:
        listed = FittedTable(
            (Column("AT", rank=1), Column("WORKER"), Column("RULE"), Column("ACT"), Column("WHY", wraps=True))
        )
        for action in report.actions[:SHOWN_ACTIONS]:
            listed.add_row(action.at, action.worker, action.rule, action.act, action.message)
        yield listed
    if len(report.actions) > SHOWN_ACTIONS:
        yield Text(f"and {len(report.actions) - SHOWN_ACTIONS} more: --json shows all")
    if report.held_back:
        held = ", ".join(f"{reason} {count}" for reason, count in sorted(report.held_back.items()))
        yield Text(f"held back (worker ticks): {held}")


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"
