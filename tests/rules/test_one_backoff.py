"""What the project has one of: a second one is written by accident, and then the two differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ("libs", "services", "operator", "cli")
    for path in sorted((ROOT / folder).rglob("src/**/*.py"))
    if ".venv" not in path.parts
]

ONE_OF_EACH = {
    "pauses that double": (
        re.compile(r"\b2(\.0)? \*\* .*(fail|tries|attempt|exits|retr)"),
        "sn17_contract/backoff.py",
    ),
    "a path pasted into a file: URI": (re.compile(r"f[\"']file:"), None),
}


@pytest.mark.parametrize("what", ONE_OF_EACH)
def test_there_is_one(what: str) -> None:
    pattern, home = ONE_OF_EACH[what]
    found = [str(path) for path in SOURCES if pattern.search(path.read_text())]
    assert found == [str(path) for path in SOURCES if home and path.as_posix().endswith(home)]
