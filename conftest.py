"""The order of the tests: files that take minutes go first, so that the others run beside them, not after."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# A property says what holds, not how fast: on a busy machine an example takes as long as it takes.
settings.register_profile("sn17", deadline=None)
settings.load_profile("sn17")

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


def pytest_configure(config: pytest.Config) -> None:
    """Signals that nohup, `&` or a CI runner makes us ignore are not ignored by the programs under test.

    They would inherit that, but no handler: it ends with exec. Whoever only starts other workers leaves it.
    """
    if config.getoption("dist", "no") != "no":
        return
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: at for at, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(FIRST)))
