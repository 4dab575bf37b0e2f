"""The page of decisions says what the committed results say, and the defaults follow from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sn17_bench.ablation import Row, compare, interval
from sn17_bench.ablation_page import DEFAULTS, earning, not_played, page
from sn17_bench.ablation_scenes import ACCEPTANCES, ablations

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "dev" / "bench" / "results"
FOUND = json.loads((RESULTS / "decisions.json").read_text())


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def test_the_page_is_generated_from_the_results() -> None:
    postmortem = json.loads((RESULTS / "postmortem.json").read_text())
    assert (ROOT / "docs" / "decisions.md").read_text() == page(FOUND, postmortem)


def test_no_figure_is_missing_and_what_was_not_played_is_told() -> None:
    assert None not in leaves(FOUND)
    wanted = {(a.decision, a.world, acceptance) for a in ablations() for acceptance in a.acceptances}
    assert {(row["decision"], row["world"], row["acceptance"]) for row in FOUND["miner"]} <= wanted
    told = (ROOT / "docs" / "decisions.md").read_text()
    assert all(world in told for world in not_played(FOUND["miner"]))


def test_without_a_signal_the_gate_costs_nothing_at_any_acceptance() -> None:
    rows = [row for row in FOUND["miner"] if (row["decision"], row["world"]) == ("gate", "no signal")]
    assert len(rows) == len(ACCEPTANCES)
    assert min(row["low"] for row in rows) >= 0.99


def test_what_is_on_by_default_earns_or_the_page_says_why_it_stays() -> None:
    found = earning(FOUND)
    wrong = [name for name, good in found.items() if DEFAULTS.get(name, "on").startswith("on") and not good]
    assert wrong == []


def test_one_world_that_loses_is_enough_not_to_earn() -> None:
    good = {"decision": "d", "low": 1.05}
    assert earning({"miner": [good]}) == {"d": True}
    assert earning({"miner": [good, {"decision": "d", "low": 0.98}]}) == {"d": False}
    assert earning({"miner": [{"decision": "d", "low": 0.995}]}) == {"d": False}


def test_an_interval_is_of_pairs() -> None:
    """Two arms that swing together differ by what differs in each pair."""
    assert interval([11.0, 22.0, 33.0], [10.0, 20.0, 30.0]) == (1.1, 1.1, 1.1)
    ratio, low, high = interval([12.0, 20.0, 28.0], [10.0, 20.0, 30.0])
    assert (ratio, low < 0.9, high > 1.1) == (1.0, True, True)


def test_a_row_can_be_played_again() -> None:
    (ablation,) = (a for a in ablations() if (a.decision, a.world) == ("gate", "20 % fail the checks"))
    row = compare(ablation, 0.9, 3, 2.0)
    assert isinstance(row, Row)
    assert row.ratio > 1.1
    assert (row.violations, row.violations_without) == (0, 0)
    assert row.duels_lost + row.accepted == pytest.approx(
        row.accepted_without + row.duels_lost_without, rel=0.3
    )
