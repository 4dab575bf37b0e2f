"""Does anything grow? The whole stack on a real node, for hours, with workers that leak and are recycled.

    python -m sn17_bench.soak --hours N [--speed N] [--settle N] [--archives FILE ...] [--json FILE]

`make soak HOURS=N` does the same.

The network's time runs twenty times as fast, so 1.2 hours are a day of it; with --speed 60 it is 0.4, where
the machine keeps up: printed is what share of a day's tasks was done. Every 10 s: unreclaimable memory of
operator, miner and fixer as they export it, resident memory and series of Prometheus, the journal's size.
Printed: level, slope over the last three quarters, and what remains beside the slope; exit code 1 when a
growth is beyond that noise. Baseline: the first quarter of the same run, which is left out of the slope.
With --settle as many hours come before and are judged on their own: there caches fill that fill once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import time
from pathlib import Path

import httpx2
from sn17_chaos.cluster_bed import bed
from sn17_chaos.cluster_release import SPEED, VALIDATORS
from sn17_chaos.cluster_world import ClusterWorld
from sn17_chaos.trend import Trend, rows, table, trend, write

from sn17_bench.stamp import stamp

SAMPLE_SECONDS = 10.0
MIB = 1 << 20
LEAK = {"leak_mib_per_generation": 12}
OWN = {"operator": 9090, "miner": 9090, "fixer": 9090}
COOLDOWN_SECONDS = 300.0
"""Of the network: so often a validator hands out a task."""
DAY_TASKS = VALIDATORS * 86400 / COOLDOWN_SECONDS
UNITS = {**{f"{name} memory MiB": MIB for name in (*OWN, "prometheus")}, "journal MiB": MIB}


def metric(text: str, name: str) -> float:
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


def sample(world: ClusterWorld) -> dict[str, float]:
    """What is to be had now; a service that restarts is missing from it."""
    found: dict[str, float] = {}
    inside = world.bed.inside
    for name, port in OWN.items():
        with contextlib.suppress(httpx2.HTTPError):
            text = inside.request("GET", f"{world.address(name, port)}/metrics").text
            found[f"{name} memory MiB"] = metric(text, "sn17_memory_unreclaimable_bytes")
    with contextlib.suppress(httpx2.HTTPError):
        text = inside.request("GET", f"{world.address('prometheus', 9090)}/metrics").text
        found["prometheus memory MiB"] = metric(text, "process_resident_memory_bytes")
        found["prometheus series"] = metric(text, "prometheus_tsdb_head_series")
    with contextlib.suppress(OSError, httpx2.HTTPError):
        found["journal MiB"] = sum(
            each.stat().st_size for each in world.journal_path().parent.glob("journal*")
        )
    return found


def soak(world: ClusterWorld, seconds: float) -> list[Trend]:
    series: dict[str, list[tuple[float, float]]] = {}
    start = time.monotonic()
    while (at := time.monotonic() - start) < seconds:
        for name, value in sample(world).items():
            series.setdefault(name, []).append((at, value))
        time.sleep(SAMPLE_SECONDS)
    return [trend(name, samples) for name, samples in series.items()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.2)
    parser.add_argument("--settle", type=float, default=0.0, help="hours before, judged apart")
    parser.add_argument("--speed", type=float, default=SPEED, help="of the network's time")
    parser.add_argument("--archives", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with bed(1, archives=options.archives) as on:
        world = ClusterWorld(on, "soak")
        try:
            world.start(LEAK, options.speed)
            world.await_first()
            settling = soak(world, 3600 * options.settle) if options.settle else []
            before, recycled = len(world.assigned()), len(world.recycles)
            trends = soak(world, 3600 * options.hours)
            recycles, tasks = len(world.recycles) - recycled, len(world.assigned()) - before
        finally:
            world.close()
    if settling:
        print(f"The first {60 * options.settle:.0f} min:\n{table(settling, UNITS)}\nAfter them:")
    print(table(trends, UNITS))
    days = options.hours * options.speed / 24
    print(
        f"{before} tasks before, then {tasks}, and {recycles} recycles,"
        f" in {60 * options.hours:.0f} min at {options.speed:g}-fold speed:"
        f" {days:.0%} of a day by the clock, {tasks / DAY_TASKS:.0%} by the tasks"
    )
    if options.json:
        write(
            options.json,
            trends,
            hours=options.hours,
            settled_hours=options.settle,
            settled_tasks=before,
            settling=rows(settling),
            load=os.getloadavg()[0],
            speed=options.speed,
            days_by_the_clock=round(days, 3),
            days_by_tasks=round(tasks / DAY_TASKS, 3),
            tasks=tasks,
            recycles=recycles,
            **stamp(),
        )
    return int(not all(each.flat for each in trends if each.name != "journal MiB"))


if __name__ == "__main__":
    sys.exit(main())
