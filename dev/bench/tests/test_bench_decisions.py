"""The page of decisions says what the committed result says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from sn17_bench.ablation import Row, earns
from sn17_bench.ablation_page import page

ROOT = Path(__file__).resolve().parents[3]
FOUND = json.loads((ROOT / "dev" / "bench" / "results" / "decisions.json").read_text())


def test_the_page_is_generated_from_the_result() -> None:
    assert (ROOT / "docs" / "decisions.md").read_text() == page(FOUND)


def test_without_a_signal_the_gate_costs_nothing_at_any_acceptance() -> None:
    rows = [row for row in FOUND["miner"] if (row["decision"], row["world"]) == ("gate", "no signal")]
    assert len(rows) == 9
    assert min(row["low"] for row in rows) >= 0.99


def test_one_world_that_loses_is_enough_not_to_earn() -> None:
    good = Row("gate", "w", 0.5, 1.1, 1.05, 1.15, 1.0, 1.0, None, None, None, None, None)
    assert earns([good])
    assert not earns([good, replace(good, low=0.98)])
    assert not earns([replace(good, low=0.995)])
