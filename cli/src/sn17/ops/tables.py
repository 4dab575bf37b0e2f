"""Explanations and reports for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

COLOURS = {"Ok": "green", "Breach": "red", "Dwell": "yellow", "Unknown": "magenta", "Resting": "cyan"}
SHOWN_ACTIONS = 50


def explanation(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """One worker as the operator sees it."""
    yield Text.assemble(
        (found["pod"], "bold"),
        f" on {found.get('node') or '-'}: {found['state']}, verdict {found['verdict']}",
    )
    if found.get("message"):
        yield Text(found["message"])
    table = Table("RULE", "OUTCOME", "VALUE", "MARK", "SAMPLE AGE", "DWELL LEFT", "WHY")
    for rule in found["rules"]:
        table.add_row(
            rule["rule"],
            Text(rule["outcome"], style=COLOURS.get(rule["outcome"], "")),
            _number(rule["value"]),
            _number(rule["mark"]),
            _seconds(rule["sampleAgeSeconds"]),
            _seconds(rule["dwellLeftSeconds"] or None),
            rule["message"],
        )
    yield table
    budget = found["budget"]
    yield Text(
        f"budget: {budget['unavailable']} of {budget['expected']} out of service, {budget['inFlight']} being "
        f"remediated, {budget['maxUnavailable']} may be; quality verdicts: {budget['qualityVerdicts']}, "
        f"{budget['maxUnhealthy']} may be"
    )
    yield Text.assemble("next: ", (found["next"], "bold"))
    yield Text("queries:")
    for query in dict.fromkeys(query for rule in found["rules"] for query in rule["queries"]):
        yield Text(f"  {query}", style="dim")


def report_table(report: Mapping[str, Any]) -> RenderableType:
    """What a replay found."""
    total = sum(report["verdicts"].values()) or 1
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in sorted(report["verdicts"].items()))
    span = f"{report['start']} to {report['end']}"
    head = Text(f"{span}: {report['workers']} workers, {report['ticks']} ticks; {shares}")
    rates = Table("RULE", "ACTIONS", "PER WORKER AND DAY", title="What it would have done")
    actions = report["actions"]
    for rule, rate in report["actionsPerWorkerAndDay"].items():
        rates.add_row(rule, str(sum(action["rule"] == rule for action in actions)), f"{rate:.3f}")
    if not actions:
        rates.add_row("none", "0", "0")
    listed = Table("AT", "WORKER", "RULE", "WHY")
    for action in actions[:SHOWN_ACTIONS]:
        listed.add_row(action["at"], action["worker"], action["rule"], action["message"])
    parts: list[RenderableType] = [head, rates]
    if actions:
        parts.append(listed)
    if len(actions) > SHOWN_ACTIONS:
        parts.append(Text(f"and {len(actions) - SHOWN_ACTIONS} more: --json shows all"))
    if report["heldBack"]:
        held = ", ".join(f"{reason} {count}" for reason, count in sorted(report["heldBack"].items()))
        parts.append(Text(f"held back (worker ticks): {held}"))
    return Group(*parts)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"
