"""docs/operator.md names a test for each complaint about other systems: each must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sn17_operator.core.plan import Reason
from sn17_operator.core.rules import CHAIN

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operator.md").read_text()
HERE = ("simulation", "people", "machine", "planner", "policy", "status", "adapters", "glue", "loop")
SERVER = ("cluster", "writes", "faults", "prometheus", "scale")
NODE = ("acceptance", "arms", "steering")
FILES = {
    **{name: f"operator/tests/test_operator_{name}.py" for name in HERE},
    **{name: f"tests/apiserver/test_operator_{name}.py" for name in SERVER},
    **{name: f"tests/e2e/test_{name}.py" for name in NODE},
    "crd": "tests/apiserver/test_crd.py",
    "chart": "tests/chart/test_chart_api.py",
    "bench": "dev/bench/src/sn17_bench/operator_fleet.py",
}
COMPLAINTS = 13
"""Of the systems that were read before this one was built."""


def table(head: str) -> list[list[str]]:
    """Cells of the table whose first line this is."""
    lines = TEXT[TEXT.index(head) :].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


ROWS = table("| complaint | here | test |")


def test_every_complaint_is_listed() -> None:
    assert len(ROWS) == COMPLAINTS
    assert all(len(row) == 3 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_named_tests_exist(row: list[str]) -> None:
    found = 0
    for part in row[2].split("; "):
        files, _, names = part.partition(": ")
        source = (ROOT / FILES[files]).read_text()
        functions = re.findall(r"def (\w+)\(", source)
        for name in re.findall(r"`([a-z_.0-9]+)`", re.sub(r"\([^)]*\)", "", names)):
            wanted = name.strip(".")
            assert any(wanted in function for function in functions), f"{files} has no {name}"
            found += 1
    assert found


def test_every_rule_and_every_refusal_is_explained() -> None:
    for rule in CHAIN:
        for name in rule.names:
            assert f"| {name} |" in TEXT
    words = " ".join(row[0] for row in table("| word | meaning |"))
    refusals = list(Reason)[list(Reason).index(Reason.PAUSED) :]
    missing = [str(r) for r in refusals if str(r) not in words and r is not Reason.TARGET_NOT_FOUND]
    assert missing == []
