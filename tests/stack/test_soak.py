"""The short form of the soak: real processes at full speed for some minutes, and nothing grows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from sn17_chaos.trend import table, trend

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS = float(os.environ.get("SN17_SOAK_SECONDS", "480"))
SERVICES = ("fixer", "miner")
"""The local validators are left out: they keep a book of every task for the referee."""
START_SECONDS = 120.0
SHORT_TOLERANCE = 0.35
"""Heaps still find their size in so few minutes: up to 17 % was seen. What this form sees is a service that
keeps assets (a megabyte a task); one that keeps a few kilobytes shows in a day's run, `make soak`."""


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Process id of `sn17 up`, in which the operator runs too, and its folder. Its last worker leaks."""
    command = [
        sys.executable,
        "-m",
        "sn17",
        "up",
        "--backend",
        "procedural",
        "--demo",
        "--validators",
        "3",
        "--state-dir",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=(tmp_path / "up.log").open("wb")) as process:
        yield process.pid, tmp_path
        process.send_signal(signal.SIGINT)


def look(pid: int, folder: Path) -> Iterator[tuple[str, float]]:
    """Memory and exported series of every service that answers."""
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    yield "operator memory", float(resident * os.sysconf("SC_PAGE_SIZE"))
    for name in SERVICES:
        with contextlib.suppress(OSError, ValueError):
            ready = json.loads((folder / f"run/{name}.json").read_text())
            with urlopen(f"http://127.0.0.1:{ready['ops_port']}/metrics", timeout=5) as answer:
                text = answer.read().decode()
            found = re.search(r"^sn17_memory_unreclaimable_bytes (\S+)$", text, re.MULTILINE)
            assert found is not None
            yield f"{name} memory", float(found[1])
            yield f"{name} series", float(sum(not line.startswith("#") for line in text.splitlines()))


def test_memory_and_series_stay_flat(up: tuple[int, Path]) -> None:
    series: dict[str, list[tuple[float, float]]] = {}
    patience = time.monotonic() + START_SECONDS
    while {name.split()[0] for name, _ in look(*up)} != {"operator", *SERVICES}:
        assert time.monotonic() < patience, (up[1] / "up.log").read_text()
        time.sleep(0.5)
    start = time.monotonic()
    while (at := time.monotonic() - start) < SECONDS:
        for name, value in look(*up):
            series.setdefault(name, []).append((at, value))
        time.sleep(2)
    trends = [trend(name, samples, tolerance=SHORT_TOLERANCE) for name, samples in series.items()]
    print(table(trends, {f"{name} memory": 1 << 20 for name in ("operator", *SERVICES)}))
    assert [each.name for each in trends if not each.flat] == []
