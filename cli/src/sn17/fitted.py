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
NARROWEST: Final = 16
"""Cells below which a text that runs over several lines is of no use."""


@dataclass(frozen=True, slots=True)
class Column:
    """``rank`` 0 is always shown, the highest goes first. ``shortens``: a text that may end in dots;
    ``wraps``: one that may run over several lines.
    """

    name: str
    right: bool = False
    rank: int = 0
    shortens: bool = False
    wraps: bool = False

    def least(self, full: int) -> int:
        """Cells that it needs of the ``full`` width of its content."""
        if self.shortens:
            return min(full, SHORTEST)
        return min(full, NARROWEST) if self.wraps else full


@dataclass(frozen=True, slots=True)
class Row:
    """Cells for each column; ``section``: a line goes above it."""

    cells: Sequence[str | Text]
    style: str = ""
    section: bool = False


@dataclass(slots=True)
class FittedTable:
    """Rows of strings or ``Text``, one cell for each column; ``style`` goes to ``rich.table.Table``."""

    columns: Sequence[Column]
    rows: list[Row] = field(default_factory=list)
    style: dict[str, Any] = field(default_factory=dict)

    def add_row(self, *cells: str | Text, style: str = "", section: bool = False) -> None:
        """Append a row; cells that are left out are empty."""
        filled = [*cells, *("" for _ in self.columns[len(cells) :])]
        self.rows.append(Row(filled, style, section))

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
                no_wrap=not column.wraps,
                overflow="fold" if column.wraps else "ellipsis",
                min_width=width,
                max_width=width,
            )
        for row in self.rows:
            if row.section:
                table.add_section()
            table.add_row(*(row.cells[index] for index in widths), style=row.style)
        yield table
        hidden = [column.name for index, column in enumerate(self.columns) if index not in widths]
        if hidden:
            yield Text(f"no room for: {', '.join(hidden)}", style="dim")

    def _width(self, console: Console, index: int) -> int:
        cells = [self.columns[index].name, *(row.cells[index] for row in self.rows)]
        return max(Measurement.get(console, console.options, cell).maximum for cell in cells)

    def _widths(self, full: Sequence[int], room: int) -> dict[int, int]:
        """The width of each column that is shown, by its place."""
        widths = {
            index: column.least(width)
            for index, (column, width) in enumerate(zip(self.columns, full, strict=True))
        }
        boxed = int(self.style.get("box", True) is not None)
        edges = 2 * boxed + 2 * int(self.style.get("pad_edge", True))
        between = 2 + boxed

        def spare() -> int:
            return room - sum(widths.values()) - edges - between * (len(widths) - 1)

        while spare() < 0 and (droppable := [index for index in widths if self.columns[index].rank]):
            del widths[max(droppable, key=lambda index: (self.columns[index].rank, index))]
        for index in widths:
            widths[index] += min(max(spare(), 0), full[index] - widths[index])
        return widths
