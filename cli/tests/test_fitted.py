"""Tables keep whole numbers and names at every width; what has no room is named."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sn17.fitted import SHORTEST, Column, FittedTable

COLUMNS = (
    Column("#", right=True),
    Column("validator", rank=2),
    Column("prompt", rank=1, shortens=True),
    Column("outcome"),
    Column("seeds", right=True, rank=3),
)
ROW = ("123456", "5HdS94TF", "a very long prompt about a red cube on a blue table", "given_up", "77")


def shown(width: int, columns: tuple[Column, ...] = COLUMNS, row: tuple[str, ...] = ROW) -> str:
    table = FittedTable(columns)
    table.add_row(*row)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [200, 80, 60, 40, 33])
def test_what_stays_is_whole_and_what_goes_is_named(width: int) -> None:
    text = shown(width)
    assert "123456" in text
    assert "given_up" in text
    for column, cell in zip(COLUMNS, ROW, strict=True):
        if column.shortens:
            continue
        named = re.search(rf"no room for: .*\b{re.escape(column.name)}", text.replace("\n", " "))
        assert (cell in text) != bool(named), (column.name, text)
    assert all(len(line) <= width for line in text.splitlines())


def test_the_least_important_column_goes_first() -> None:
    hidden = {width: shown(width).partition("no room for: ")[2].strip() for width in (200, 58, 50, 40)}
    assert hidden == {200: "", 58: "", 50: "seeds", 40: "validator, seeds"}


def test_a_text_is_shortened_before_a_column_goes() -> None:
    text = shown(70)
    assert "no room" not in text
    assert "…" in text


@given(
    st.lists(
        st.tuples(st.text("0123456789", min_size=1, max_size=12), st.integers(0, 5)), min_size=1, max_size=9
    ),
    st.integers(10, 200),
)
def test_numbers_are_never_cut(cells: list[tuple[str, int]], width: int) -> None:
    columns = tuple(Column(f"c{index}", right=True, rank=rank) for index, (_, rank) in enumerate(cells))
    text = shown(width, columns, tuple(cell for cell, _ in cells))
    always = [cell for cell, rank in cells if rank == 0]
    if sum(max(len(cell), 2) + 3 for cell in always) + 1 <= width:
        lines = [line for line in text.splitlines() if "│" in line]
        for cell in always:
            assert any(re.search(rf"(?<!\d){cell}(?!\d)", line) for line in lines), (text, cell)
    assert SHORTEST > 0
