"""Checks and samples as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text
from sn17_contract.text import neutralise

from sn17.accept.verdict import Check, Grade, Sample
from sn17.fitted import Column, FittedTable

_STYLES = {Grade.PASS: "green", Grade.WARN: "yellow", Grade.FAIL: "bold red"}


def check_table(checks: Iterable[Check], title: str) -> FittedTable:
    """One line per check."""
    columns = (
        Column(""),
        Column("check", wraps=True),
        Column("measured"),
        Column("wanted", wraps=True, rank=1),
        Column("note", wraps=True, rank=2),
    )
    table = FittedTable(columns, style={"title": title, "title_justify": "left", "title_style": "bold"})
    for check in checks:
        grade = Text(check.grade.value, style=_STYLES[check.grade])
        table.add_row(grade, check.name, check.measured, check.wanted, check.text)
    return table


def sample_line(index: int, of: int, sample: Sample) -> str:
    """One generation as a line."""
    memory = "-" if sample.memory_ratio is None else f"{sample.memory_ratio:.0%}"
    return (
        f"{index:>3}/{of} {sample.seconds:6.1f} s {sample.gaussians:>9,} gaussians  memory {memory:>4}  "
        f"{sample.verdict:<12} {sample.worker}: {neutralise(sample.prompt)}"
    )


def passed(checks: Sequence[Check]) -> bool:
    """No check failed."""
    return bool(checks) and all(check.grade is not Grade.FAIL for check in checks)


def verdict_json(checks: Sequence[Check], **more: Any) -> str:
    """The same as the tables, for machines."""
    body = {"passed": passed(checks), "checks": [asdict(check) for check in checks], **more}
    return json.dumps(body, indent=2, default=str)
