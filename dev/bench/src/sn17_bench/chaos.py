"""What is lost when things break: faults on purpose, the invariants held after each, recovery measured.

    python -m sn17_bench.chaos [--tier fast] [--world stack|plane|lanes] [--runs N] [--seed N]
                               [--faults NAME ...] [--pairs SHARE] [--undisturbed N] [--json FILE] [--keep D]
    python -m sn17_bench.chaos --tier cluster [--minutes N] [--releases N] [--archives FILE ...]
    python -m sn17_bench.chaos --show FILE ...

- ``fast``: `sn17 up`'s stack of real processes (world ``stack``), and the operator as a process against a
  real API server and a real Prometheus (world ``plane``), many faults after one another.
- ``cluster``: the stack installed by Helm on a real Kubernetes of two nodes; needs root, for N minutes.

Baseline in the same run: intervals in which nothing is broken, judged the same way. Exit code 1 when anything
was lost, done twice or breached. ``--show`` prints the table of result files, merged.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from random import Random
from typing import Any

from sn17_chaos.faults import CannotInjectError, Fault, Register
from sn17_chaos.results import Row, embed, merge, read, table, write
from sn17_chaos.runner import Trial, trial

ROOT = Path(__file__).resolve().parents[4]

DEADLINE_SECONDS = 120.0
RESULTS = ROOT / "dev" / "bench" / "results"


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


class Book:
    """Rows of this run, on disk after every trial."""

    def __init__(self, path: Path | None, seed: int, tier: str, world: str) -> None:
        self.path, self.seed, self.tier, self.world = path, seed, tier, world
        self.rows: dict[str, Row] = {}
        self.skipped: dict[str, str] = {}
        self.about: dict[str, int] = {}
        self.oom_kills = 0
        self.started = dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds")
        self.commit = commit()

    def add(self, done: Trial) -> None:
        row = self.rows.setdefault(done.name, Row(done.name, self.tier, self.commit, self.started, self.seed))
        pair = " + ".join(sorted(done.faults)) if len(done.faults) > 1 else None
        row.add(tasks=done.tasks, breaches=done.breaches, recovery=done.recovery, pair=pair)
        self.oom_kills += len(done.history.oom_kills)
        took = "not recovered" if done.recovery is None else f"recovered in {done.recovery:.1f} s"
        print(
            f"{dt.datetime.now(tz=dt.UTC):%H:%M:%S}  {pair or done.name}: {took}, {done.tasks} tasks",
            flush=True,
        )
        for breach in done.breaches:
            print(f"          BREACH {breach}", flush=True)
        self.save()

    def save(self) -> None:
        if self.path is not None:
            about = {"world": self.world, "seed": self.seed, "not_injected": self.skipped}
            write(self.path, self.rows.values(), **about, **self.about)


def schedule(
    faults: Sequence[Fault[Any]], rng: Random, runs: int, pair_share: float, undisturbed: int
) -> list[tuple[Fault[Any], ...]]:
    """Every fault in turn, some with a second one, and undisturbed intervals in between."""
    plan: list[tuple[Fault[Any], ...]] = []
    among = [fault for fault in faults if fault.pairs]
    while len(plan) < runs:
        turn = [fault for fault in faults for _ in range(fault.weight)]
        rng.shuffle(turn)
        for fault in turn[: runs - len(plan)]:
            others = [other for other in among if other is not fault]
            paired = fault.pairs and others and rng.random() < pair_share
            plan.append((fault, rng.choice(others)) if paired else (fault,))
    for _ in range(undisturbed):
        plan.insert(rng.randrange(len(plan) + 1), ())
    return plan


def make_world(kind: str, folder: Path, seed: int) -> tuple[Any, Register[Any]]:
    if kind == "stack":
        from sn17_chaos.stack_faults import STACK
        from sn17_chaos.stack_world import StackWorld

        return StackWorld(folder, seed), STACK
    from sn17_chaos.plane_faults import PLANE
    from sn17_chaos.plane_world import PlaneWorld

    return PlaneWorld(folder, seed), PLANE


def run_fast(options: argparse.Namespace) -> Book:
    rng = Random(options.seed)
    book = Book(options.json, options.seed, "fast", options.world)
    plan: list[tuple[Fault[Any], ...]] | None = None
    while plan is None or plan:
        folder = Path(tempfile.mkdtemp(prefix="sn17-chaos-", dir=options.keep))
        world, register = make_world(options.world, folder, options.seed)
        faults = [register[name] for name in options.faults] if options.faults else list(register)
        if plan is None:
            plan = schedule(faults, rng, options.runs, options.pairs, options.undisturbed)
        broken = False
        world.log.append(f"seed {options.seed}")
        try:
            world.start()
            while plan and not broken:
                broken = _one(book, world, plan.pop(0), rng)
        finally:
            world.close()
            (folder / "world.log").write_text("\n".join(world.log) + "\n")
        # A world that did not recover is kept for whoever looks for the cause, and another takes its place.
        if broken or any(row.notes for row in book.rows.values()):
            print(f"          kept: {folder}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return book


def run_lanes(options: argparse.Namespace) -> Book:
    """Every lane injects at its own pace, all under one operator."""
    from sn17_chaos.lane_faults import LANE
    from sn17_chaos.lane_world import LanesWorld
    from sn17_chaos.plane_world import PlaneWorld

    book = Book(options.json, options.seed, "fast", "lanes")
    rng = Random(options.seed)
    faults = [LANE[name] for name in options.faults] if options.faults else list(LANE)
    plan = schedule(faults, rng, options.runs, options.pairs, options.undisturbed)
    folder = Path(tempfile.mkdtemp(prefix="sn17-chaos-", dir=options.keep))
    world = LanesWorld(PlaneWorld(folder, options.seed), options.lanes)
    lock = threading.Lock()

    def go(lane: Any, own: Random) -> None:
        broken = False
        while not broken:
            with lock:
                if not plan:
                    return
                names = plan.pop(0)
            broken = _one(book, lane, names, own, lock)

    try:
        world.start()
        threads = [
            threading.Thread(target=go, args=(lane, Random(options.seed * 1000 + number)))
            for number, lane in enumerate(world.lanes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        world.close()
        (folder / "world.log").write_text("\n".join(world.host.log) + "\n")
    print(f"          kept: {folder}", flush=True)
    return book


def _one(
    book: Book,
    world: Any,
    faults: tuple[Fault[Any], ...],
    rng: Random,
    lock: AbstractContextManager[Any] | None = None,
) -> bool:
    world.log.append(f"--- {' + '.join(fault.name for fault in faults) or 'undisturbed'}")
    try:
        done = trial(world, faults, rng, deadline=DEADLINE_SECONDS)
    except CannotInjectError as error:
        for fault in faults:
            book.skipped[fault.name] = str(error)
        return False
    except Exception:
        # The harness itself failed: no trial, but nothing that may be left unsaid.
        traceback.print_exc()
        book.skipped[" + ".join(fault.name for fault in faults)] = traceback.format_exc(limit=1)
        return True
    with lock or nullcontext():
        book.add(done)
    return done.recovery is None


def run_cluster(options: argparse.Namespace) -> Book:
    from sn17_chaos.cluster import run

    book = Book(options.json, options.seed, "cluster", "cluster")
    committed = merge(row for path in sorted(RESULTS.glob("chaos-cluster-*.json")) for row in read(path))
    injected = run(
        book.add,
        seed=options.seed,
        seconds=60 * options.minutes,
        count=options.releases,
        say=lambda text: print(f"          {text}", flush=True),
        only=options.faults or (),
        injected={row.fault: row.runs for row in committed},
        archives=options.archives or (),
    )
    book.skipped |= injected.skipped
    book.about |= {"strikes": injected.count, "oom_kills": book.oom_kills}
    book.save()
    return book


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tier", choices=["fast", "cluster"], default="fast")
    parser.add_argument("--world", choices=["stack", "plane", "lanes"], default="stack")
    parser.add_argument("--runs", type=int, default=20, help="faults injected, pairs counted once")
    parser.add_argument("--undisturbed", type=int, default=None, help="intervals without a fault")
    parser.add_argument("--pairs", type=float, default=0.25, help="share of injections that are pairs")
    parser.add_argument("--lanes", type=int, default=6, help="fleets with faults at once (world lanes)")
    parser.add_argument("--faults", nargs="*", help="only these")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="of injections, cluster tier")
    parser.add_argument("--releases", type=int, default=3, help="side by side, cluster tier")
    parser.add_argument("--archives", type=Path, nargs="*", help="images, cluster tier; built otherwise")
    parser.add_argument("--keep", type=Path, help="parent of the folders with logs of what failed")
    parser.add_argument("--show", type=Path, nargs="+", help="print the table of these result files")
    parser.add_argument("--into", type=Path, help="put that table between the markers of this page, too")
    options = parser.parse_args()
    # What runs is ended, and what is mounted unmounted, however this ends.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if options.show:
        printed = table(merge(row for path in options.show for row in read(path)))
        print(printed)
        if options.into:
            options.into.write_text(embed(options.into.read_text(), printed))
        return 0
    if options.undisturbed is None:
        options.undisturbed = options.runs
    if options.tier == "cluster":
        book = run_cluster(options)
    else:
        book = run_lanes(options) if options.world == "lanes" else run_fast(options)
    rows = merge(book.rows.values())
    print("\n" + table(rows))
    for name, why in book.skipped.items():
        print(f"not injected: {name}: {why}")
    return int(any(row.lost or row.duplicated or row.breaches for row in rows))


if __name__ == "__main__":
    sys.exit(main())
