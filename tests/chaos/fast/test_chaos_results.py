"""The table in the docs is that of the committed result files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sn17_chaos.results import embed, merge, read, table

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-it-was-tested.md"
RIGS = ("cluster", "fast-lanes", "fast-plane", "fast-stack")


def test_the_docs_show_the_committed_results() -> None:
    files = sorted((ROOT / "dev/bench/results").glob("chaos-*.json"))
    assert [rig for rig in RIGS if not any(path.name.startswith(f"chaos-{rig}-") for path in files)] == []
    text = PAGE.read_text()
    printed = table(merge(row for path in files for row in read(path)))
    assert embed(text, printed) == text, "sn17_bench.chaos --show dev/bench/results/chaos-*.json --into it"
    assert all(row.lost == row.duplicated == row.breaches == 0 for path in files for row in read(path))


def test_a_page_without_a_place_for_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="chaos:table"):
        embed("a page", "a table")
