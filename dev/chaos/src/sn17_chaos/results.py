"""The table: one row per fault, with what it took and what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sn17_chaos.invariants import DUPLICATED, LOST, Breach

SCHEMA = "sn17.chaos/v1"
UNDISTURBED = "undisturbed"
"""The baseline: as many intervals of the same kind in which nothing was broken."""
PAIR = "two at once"
"""All pairs are one row; which ones they were stands in ``pairs``."""


@dataclass(slots=True)
class Row:
    """All runs of one fault. ``recovery``: seconds from the end of the fault until all was as before."""

    fault: str
    tier: str
    commit: str
    date: str
    seed: int
    runs: int = 0
    tasks: int = 0
    lost: int = 0
    duplicated: int = 0
    breaches: int = 0
    recovery: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)

    def add(
        self, *, tasks: int, breaches: Sequence[Breach], recovery: float | None, pair: str | None = None
    ) -> None:
        """Book one run."""
        if pair is not None:
            self.pairs.append(pair)
        self.runs += 1
        self.tasks += tasks
        self.lost += sum(breach.invariant == LOST for breach in breaches)
        self.duplicated += sum(breach.invariant == DUPLICATED for breach in breaches)
        self.breaches += sum(breach.invariant not in (LOST, DUPLICATED) for breach in breaches)
        self.notes += [str(breach) for breach in breaches]
        if recovery is not None:
            self.recovery.append(round(recovery, 2))


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile, ``share`` in (0, 1]; None for no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def write(path: Path, rows: Iterable[Row], **about: Any) -> None:
    """A result file: ``about`` says how it came to be."""
    described = [
        {
            **asdict(row),
            "recovery_p50": percentile(row.recovery, 0.5),
            "recovery_p95": percentile(row.recovery, 0.95),
        }
        for row in rows
    ]
    path.write_text(json.dumps({"schema": SCHEMA, **about, "rows": described}, indent=1) + "\n")


def read(path: Path) -> list[Row]:
    """The rows of a result file. Raises ValueError when it is none."""
    loaded = json.loads(path.read_text())
    if loaded.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result file of {SCHEMA}")
    derived = ("recovery_p50", "recovery_p95")
    return [Row(**{k: v for k, v in row.items() if k not in derived}) for row in loaded["rows"]]


def merge(rows: Iterable[Row]) -> list[Row]:
    """One row per tier and fault, the baseline first; commit and date are the newest."""
    merged: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: (row.tier, row.fault != UNDISTURBED, row.fault, row.date)):
        into = merged.setdefault(
            (row.tier, row.fault), Row(row.fault, row.tier, row.commit, row.date, row.seed)
        )
        into.commit, into.date = row.commit, row.date
        for name in ("runs", "tasks", "lost", "duplicated", "breaches"):
            setattr(into, name, getattr(into, name) + getattr(row, name))
        into.recovery += row.recovery
        into.notes += row.notes
        into.pairs += row.pairs
    return list(merged.values())


HEADER = (
    "fault",
    "tier",
    "runs",
    "tasks",
    "lost",
    "duplicated",
    "breaches",
    "recovery p50 s",
    "p95 s",
    "commit",
    "date",
)


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, with a line of sums over the faults of each tier."""
    lines = [_cells(row) for row in rows]
    tiers = dict.fromkeys(row.tier for row in rows)
    lines += [_cells(_sum(tier, [row for row in rows if row.tier == tier])) for tier in tiers]
    widths = [max(len(line[i]) for line in (HEADER, *lines)) for i in range(len(HEADER))]
    printed = [HEADER, tuple("-" * width for width in widths), *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in printed
    )


BEGIN, END = "<!-- chaos:table -->", "<!-- /chaos:table -->"


def embed(text: str, printed: str) -> str:
    """A page with this table in the place of the one between its markers. Raises ValueError without them."""
    before, begin, rest = text.partition(BEGIN)
    _, other, after = rest.partition(END)
    if not begin or not other:
        raise ValueError(f"no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{printed}\n{END}{after}"


def _sum(tier: str, rows: Sequence[Row]) -> Row:
    injected = [row for row in rows if row.fault != UNDISTURBED]
    total = Row("all faults", tier, "", "", 0)
    for name in ("runs", "tasks", "lost", "duplicated", "breaches"):
        setattr(total, name, sum(getattr(row, name) for row in injected))
    total.recovery = [seconds for row in injected for seconds in row.recovery]
    return total


def _cells(row: Row) -> tuple[str, ...]:
    p50, p95 = percentile(row.recovery, 0.5), percentile(row.recovery, 0.95)
    return (
        row.fault,
        row.tier,
        *(str(n) for n in (row.runs, row.tasks, row.lost, row.duplicated, row.breaches)),
        *("-" if value is None else f"{value:.1f}" for value in (p50, p95)),
        row.commit[:8],
        row.date[:10],
    )
