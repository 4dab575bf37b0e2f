"""Results as lines and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from sn17.doctor.model import Outcome, Result

STYLES: Final = {
    Outcome.OK: "green",
    Outcome.WARNING: "yellow",
    Outcome.FAILED: "bold red",
    Outcome.UNKNOWN: "magenta",
    Outcome.NOT_USED: "dim",
}
NAME_WIDTH: Final = 16
OUTCOME_WIDTH: Final = 8


def line(result: Result) -> Text:
    """One check: its name, outcome, what was found, and the remedy with its command."""
    finding = result.finding
    text = Text(f"{result.name:<{NAME_WIDTH}} ")
    text.append(f"{finding.outcome.value:<{OUTCOME_WIDTH}}", STYLES[finding.outcome])
    text.append(f" {finding.said}")
    if finding.remedy:
        text.append(f" -> {finding.remedy}", "" if finding.outcome is not Outcome.NOT_USED else "dim")
    if finding.command:
        text.append(f": {finding.command}", "bold")
    return text


def as_json(results: Sequence[Result], code: int) -> str:
    """``{"exit_code", "checks": [{"name", "outcome", "said", "remedy", "command"}]}``."""
    checks = [
        {
            "name": result.name,
            "outcome": result.finding.outcome.value,
            "said": result.finding.said,
            "remedy": result.finding.remedy,
            "command": result.finding.command,
        }
        for result in results
    ]
    return json.dumps({"exit_code": code, "checks": checks}, indent=2)
