"""Tables that fit: numbers and names are never cut, whole columns go instead, the least important first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

SHORTEST: Final = 12
"""Cells below which a text that may be shortened is of no use."""


@dataclass(frozen=True, slots=True)
class Column:
    """``rank`` 0 is always shown, the highest goes first. ``shortens``: a text that may end in dots."""

    name: str
    right: bool = False
    rank: int = 0
    shortens: bool = False


@dataclass(slots=True)
class FittedTable:
    """Rows of strings or ``Text``, one cell for each column; ``style`` goes to ``rich.table.Table``."""

    columns: Sequence[Column]
    rows: list[Sequence[str | Text]] = field(default_factory=list)
    style: dict[str, Any] = field(default_factory=dict)

    def add_row(self, *cells: str | Text) -> None:
        """Append a row; cells that are left out are empty."""
        self.rows.append([*cells, *("" for _ in self.columns[len(cells) :])])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The columns that there is room for, and a line that names the others."""
        full = [self._width(console, index) for index in range(len(self.columns))]
        widths = self._widths(full, options.max_width)
        table = Table(**self.style)
        for index, width in widths.items():
            column = self.columns[index]
            justify: Literal["left", "right"] = "right" if column.right else "left"
            table.add_column(
                column.name,
                justify=justify,
                no_wrap=True,
                overflow="ellipsis",
                min_width=width,
                max_width=width,
            )
        for row in self.rows:
            table.add_row(*(row[index] for index in widths))
        yield table
        hidden = [column.name for index, column in enumerate(self.columns) if index not in widths]
        if hidden:
            yield Text(f"no room for: {', '.join(hidden)}", style="dim")

    def _width(self, console: Console, index: int) -> int:
        cells = [self.columns[index].name, *(row[index] for row in self.rows)]
        return max(Measurement.get(console, console.options, cell).maximum for cell in cells)

    def _widths(self, full: Sequence[int], room: int) -> dict[int, int]:
        """The width of each column that is shown, by its place."""
        widths = {
            index: min(width, SHORTEST) if column.shortens else width
            for index, (column, width) in enumerate(zip(self.columns, full, strict=True))
        }
        edges, between = (0, 2) if self.style.get("box", True) is None else (4, 3)

        def spare() -> int:
            return room - sum(widths.values()) - edges - between * (len(widths) - 1)

        while spare() < 0 and (droppable := [index for index in widths if self.columns[index].rank]):
            del widths[max(droppable, key=lambda index: (self.columns[index].rank, index))]
        for index in widths:
            widths[index] += min(max(spare(), 0), full[index] - widths[index])
        return widths
