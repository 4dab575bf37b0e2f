"""The order of the tests: files that take minutes go first, so that the others run beside them, not after."""

from __future__ import annotations

import os

import pytest

# Readline, which pytest loads, sets it for child processes, among them those that run tests side by side.
os.environ.pop("COLUMNS", None)

FIRST = (
    "tests/chaos/fast/test_chaos_stack.py",
    "tests/stack/test_up.py",
    "tests/stack/test_hostile_requests.py",
    "tests/scorer/test_engine_meets_scorer.py",
    # Alone, before the cluster of the other files starts.
    "tests/e2e/test_cgroup_v2.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: at for at, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(FIRST)))
