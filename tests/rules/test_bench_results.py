"""The table of benchmark results names every file that is kept, and says what the file says."""

from __future__ import annotations

import json
from pathlib import Path

BENCH = Path(__file__).parents[2] / "dev/bench"


def table() -> dict[str, list[str]]:
    """File name -> cells of its row."""
    rows = [line for line in (BENCH / "README.md").read_text().splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].endswith(".json`")}


def test_every_result_has_a_row_and_every_row_a_result() -> None:
    assert table().keys() == {file.name for file in (BENCH / "results").iterdir()}


def test_commit_and_date_are_those_of_the_file() -> None:
    for name, (_, _, commit, date) in table().items():
        found = json.loads((BENCH / "results" / name).read_text())
        source = (found.get("rows") or [{}])[0] if name.startswith("chaos-") else found
        assert commit == (source.get("commit", "")[:7] or "-"), name
        assert date == (source.get("date", "")[:10] or "-"), name
