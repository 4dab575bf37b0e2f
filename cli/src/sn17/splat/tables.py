"""Tables and sparklines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Group
from rich.text import Text
from sn17_contract.text import neutralise
from sn17_fixer.compare import Comparison
from sn17_fixer.model import Diagnosis, RenderCheck, Step
from sn17_splats import ColumnStatistics, SplatStatistics
from sn17_splats.convention import MIN_GAUSSIANS

from sn17.fitted import Column, FittedTable

_BARE: Final[dict[str, Any]] = {"box": None, "pad_edge": False, "header_style": "bold"}
_BARS = " ▁▂▃▄▅▆▇█"
_COLOURS = {"healthy": "green", "repaired": "yellow", "damaged": "yellow", "unrepairable": "red"}


def sparkline(counts: Sequence[int]) -> str:
    """One bar per bin, the highest at full height; a bin that holds anything shows."""
    top = max(counts, default=0)
    if not top:
        return " " * len(counts)
    return "".join(_BARS[math.ceil(count / top * (len(_BARS) - 1))] for count in counts)


def number(value: float | None) -> str:
    """Short and aligned; a dash for what is not there."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    return f"{value:.4g}" if abs(value) >= 1e-3 else f"{value:.1e}"


def verdict_text(verdict: str, reasons: Sequence[str]) -> Text:
    """The verdict in its colour, and why."""
    text = Text("verdict  ")
    text.append(verdict, style=f"bold {_COLOURS.get(verdict, 'white')}")
    if reasons:
        text.append("  (" + ", ".join(reasons) + ")")
    return text


def statistics_table(statistics: SplatStatistics) -> FittedTable:
    """Both spaces under each other, one line per column, histograms between minimum and maximum."""
    ranks = {"1 %": 4, "99 %": 4, "median": 1, "+inf": 3, "-inf": 3}
    names = ("min", "1 %", "median", "99 %", "max", "mean", "std", "nan", "+inf", "-inf")
    table = FittedTable(
        (
            Column("column"),
            *(Column(name, right=True, rank=ranks.get(name, 0)) for name in names),
            Column("histogram, min to max", rank=2),
        ),
        style=_BARE,
    )
    for title, columns in (("as stored", statistics.raw), ("as drawn", statistics.user)):
        table.add_row(Text(title, style="dim"))
        for column in columns:
            table.add_row(*_statistics_cells(column))
    return table


def _statistics_cells(column: ColumnStatistics) -> list[str | Text]:
    name = "opacity (logit)" if column.name == "opacity" else column.name
    moments = (column.minimum, column.p01, column.median, column.p99, column.maximum, column.mean, column.std)
    bad = [
        Text(str(count) if count else "·", style="red" if count and not harmless else "dim")
        for count, harmless in (
            (column.nan, False),
            (column.pos_inf, column.name == "opacity"),
            (column.neg_inf, column.name == "opacity"),
        )
    ]
    return [
        name,
        *(number(value) for value in moments),
        *bad,
        Text(sparkline(column.histogram), style="cyan"),
    ]


def diagnosis_lines(diagnosis: Diagnosis, check: RenderCheck | None = None) -> Group:
    """What the statistics mean to a validator."""
    extents, opacity, gates = diagnosis.extents, diagnosis.opacity, diagnosis.gates
    table = FittedTable(
        (Column(""), Column("", wraps=True)), style={"box": None, "show_header": False, "pad_edge": False}
    )
    origin = "TRELLIS" if diagnosis.fingerprint.is_trellis else "not TRELLIS"
    degree = f", colour of degree {diagnosis.sh_degree}" if diagnosis.sh_degree else ""
    table.add_row("gaussians", f"{diagnosis.gaussians:,}{degree}; {origin}")
    size = (
        f"{number(extents.max_extent)} at its largest; drawn {number(extents.alpha_factor)} times as opaque"
    )
    if extents.strays:
        size += f"; {extents.strays} stray points shrink it {extents.size_ratio:.2f} times"
    table.add_row("extent", size)
    table.add_row("centre", "drawn off by " + ", ".join(f"{value:+.3f}" for value in extents.offset))
    table.add_row(
        "alpha",
        f"mean {number(opacity.alpha.mean)}, {opacity.transparent_share:.1%} arrive transparent",
    )
    if check is not None:
        table.add_row(
            "as drawn", f"a tenth of the silhouette below {check.alpha_p10:.3f}, mean {check.coverage:.3f}"
        )
    passed = [
        (f"{MIN_GAUSSIANS:,} gaussians", gates.enough_gaussians),
        ("20 % visible", gates.opaque_enough),
        ("rotations vary", gates.rotations_vary),
    ]
    gate_text = Text(", ").join(
        Text(f"{'✓' if good else '✗'} {name}", style="green" if good else "red") for name, good in passed
    )
    table.add_row("validator", gate_text)
    return Group(table, verdict_text(diagnosis.verdict, diagnosis.reasons))


def steps_table(steps: Sequence[Step]) -> FittedTable:
    """What each step of a fix changed."""
    table = FittedTable(
        (Column("step"), Column("changed", right=True), Column("detail", wraps=True)), style=_BARE
    )
    for step in steps:
        detail = ", ".join(f"{key} {value}" for key, value in step.detail.items())
        table.add_row(step.name, f"{step.changed:,}", detail)
    return table


def comparison_table(comparison: Comparison, names: tuple[str, str]) -> Group:
    """Two splats side by side, and how alike they look."""
    table = FittedTable((Column(""), Column("first", right=True), Column("second", right=True)), style=_BARE)
    first, second = comparison.first, comparison.second
    rows: list[tuple[str, object, object]] = [
        ("gaussians", f"{first.gaussians:,}", f"{second.gaussians:,}"),
        ("verdict", first.verdict, second.verdict),
        ("largest extent", number(first.extents.max_extent), number(second.extents.max_extent)),
    ]
    for space in ("logit", "alpha"):
        for moment in ("mean", "std", "p10", "p50"):
            values = (getattr(getattr(side.opacity, space), moment) for side in (first, second))
            rows.append((f"{space} {moment}", *(number(value) for value in values)))  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    views = FittedTable([Column(name, right=True) for name in ("view", "PSNR dB", "SSIM")], style=_BARE)
    for view in comparison.views:
        views.add_row(str(view.view), decibel(view.psnr), f"{view.ssim:.4f}")
    views.add_row("all", decibel(comparison.psnr), f"{comparison.ssim:.4f}", style="bold")
    changed = (
        "row counts differ" if comparison.rows_changed is None else f"{comparison.rows_changed:,} rows differ"
    )
    named = Text(f"first: {neutralise(names[0])}\nsecond: {neutralise(names[1])}\n")
    return Group(named, table, Text(), views, Text(changed))


def decibel(value: float) -> str:
    """A ratio, or "same" where it is infinite."""
    return "same" if math.isinf(value) else f"{value:.2f}"
