"""The committed dashboards: current, complete, in the units of their metrics, no zero in a denominator."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from sn17_contract.metrics import Metric
from sn17_dashboards.__main__ import FOLDER, main
from sn17_dashboards.boards import BOARDS
from sn17_dashboards.boards.thresholds import filled_in
from sn17_dashboards.grafana import to_json

# Process metrics of prometheus_client that the boards use as well.
STANDARD = {"process_start_time_seconds", "process_resident_memory_bytes"}
UNITS = {
    "percentunit": ("_ratio",),
    "bytes": ("_bytes",),
    "s": ("_seconds", "_seconds_bucket"),
}


def boards() -> dict[str, Mapping[str, Any]]:
    return {path.stem: json.loads(filled_in(path.read_text())) for path in FOLDER.glob("*.json")}


def panels() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, board in boards().items():
        for panel in board["panels"]:
            yield f"{name}: {panel['title']}", panel


def queries() -> Iterator[tuple[str, str]]:
    for name, panel in panels():
        for target in panel["targets"]:
            yield name, target["expr"]
    for name, board in boards().items():
        for annotation in board["annotations"]["list"]:
            yield f"{name}: {annotation['name']}", annotation["expr"]


def test_the_committed_files_are_current() -> None:
    assert main(["check"]) == 0, "run: python -m sn17_dashboards write"


def test_the_same_board_is_always_the_same_text() -> None:
    assert [to_json(board) for board in BOARDS] == [to_json(board) for board in BOARDS]


def test_the_overview_has_eight_panels_at_most() -> None:
    assert len(boards()["overview"]["panels"]) <= 8


@pytest.mark.parametrize(("name", "panel"), list(panels()))
def test_panels_are_complete(name: str, panel: Mapping[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"]
    assert defaults["unit"] in {"percentunit", "bytes", "s", "short", "none", "ops"}
    assert defaults["noValue"] == "no data"
    assert panel["datasource"]["uid"] == "${datasource}"
    values = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert values[0] is None
    assert values[1:] == sorted(values[1:])
    for target in panel["targets"]:
        assert target["legendFormat"], target["expr"]
        assert target["datasource"]["uid"] == "${datasource}"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize(("name", "panel"), list(panels()))
def test_legends_name_labels_that_the_query_keeps(name: str, panel: Mapping[str, Any]) -> None:
    for target in panel["targets"]:
        wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        kept = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", target["expr"])
            for label in group.split(",")
        }
        assert wanted <= kept, (name, target["expr"])


@pytest.mark.parametrize(("name", "expr"), list(queries()))
def test_queries_name_metrics_of_the_contract_and_one_release(name: str, expr: str) -> None:
    known = {metric.value for metric in Metric}
    found = re.findall(r"\b((?:sn17|process)_[a-z0-9_]+)(\{[^}]*\})?", expr)
    for metric, matchers in found:
        base = re.sub(r"_(total|bucket|sum|count)$", "", metric)
        assert metric in known or base in known or metric in STANDARD, metric
        assert 'namespace="$namespace",release="$release"' in matchers, (name, metric)
    assert found or expr.startswith("vector(")


@pytest.mark.parametrize(("name", "expr"), list(queries()))
def test_no_denominator_can_be_zero(name: str, expr: str) -> None:
    for after in re.findall(r"\)\s*/\s*(.*)", expr):
        assert re.match(r"\(.+ > 0\)", after), (name, expr)


@pytest.mark.parametrize(("name", "panel"), list(panels()))
def test_units_are_those_of_the_metrics(name: str, panel: Mapping[str, Any]) -> None:
    columns = {
        override["matcher"]["options"]: setting["value"]
        for override in panel["fieldConfig"]["overrides"]
        for setting in override["properties"]
        if setting["id"] == "unit"
    }
    for target in panel["targets"]:
        unit = columns.get(target["legendFormat"], panel["fieldConfig"]["defaults"]["unit"])
        metrics = re.findall(r"\b((?:sn17|process)_[a-z0-9_]+)", target["expr"])
        if unit not in UNITS or not metrics or "/" in target["expr"]:
            continue
        assert any(metric.endswith(UNITS[unit]) for metric in metrics), (name, metrics)


@pytest.mark.parametrize(("name", "panel"), list(panels()))
def test_thresholds_are_in_the_panels_unit(name: str, panel: Mapping[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["unit"] == "percentunit":
        assert all(
            step["value"] is None or 0 <= step["value"] <= 1 for step in defaults["thresholds"]["steps"]
        )
