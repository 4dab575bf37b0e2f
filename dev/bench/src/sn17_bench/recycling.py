"""Ways to live with workers that fail, in virtual time: what each costs in device seconds and in assets.

    python -m sn17_bench.recycling [--quick] [--faults NAME ...] [--seeds N] [--json FILE] [--png FILE]
    python -m sn17_bench.recycling --from FILE [--png FILE] [--markdown]

The real cores of miner (fleet), worker (guard, swaps, room) and operator (evidence, rules, planner) run on
four simulated devices. Every arm meets the same tasks and faults, seed by seed; of a rival's thresholds the
best is shown. ``--json`` keeps the rows of an existing file for faults that are not run.

- ``lost``: device seconds per 1,000 jobs in which work waited and the device was at no job that was done.
- ``kills``: by the OOM killer. ``broken off``: jobs that were begun again elsewhere;
  ``keys lost``: those whose worker knew nothing of them any more.
- ``best rival``: accepted per hour against the best of the arms without sn17, paired by seed, with 95 %.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from sn17_simulation.recycling.case import JOBS, WORKERS, Fault, Result
from sn17_simulation.recycling.score import (
    ARMS,
    GUARD,
    PM2,
    SELF_EXIT,
    SN17,
    Cell,
    Estimate,
    best_rival,
    compare,
)

from sn17_bench.recycling_page import draw, edges, table
from sn17_bench.stamp import stamp

LOADS: Final = (0.5, 0.8, 1.0)
LOAD_SECONDS: Final = (4.0, 25.0, 60.0)
JOB_SECONDS: Final = (20.0, 3.0)
FIGURES: Final[dict[str, Callable[[Result], float]]] = {
    "lost": lambda run: run.lost_per_1000,
    "accepted_per_hour": lambda run: run.accepted_per_hour,
    "interrupted": lambda run: run.interrupted,
    "keys_lost": lambda run: run.keys_lost,
    "oom_kills": lambda run: run.oom_kills,
    "missed": lambda run: run.missed,
}
COLUMNS: Final = ("arm", "at", "lost", "accepted/h", "broken off", "keys lost", "kills", "vs best rival")


def told(value: Estimate) -> list[float]:
    """Mean and interval, rounded."""
    return [round(each, 4) for each in (value.mean, value.low, value.high)]


def row(cell: Cell, cells: dict[str, Cell]) -> dict[str, Any]:
    """One arm in one case."""
    found: dict[str, Any] = {"arm": cell.arm, "setting": cell.setting}
    for name, figure in FIGURES.items():
        found[name] = told(cell.mean(figure))
    found["vs_best_rival"] = told(cell.against(best_rival(cells)))
    if cell.arm == SN17:
        for name in (PM2, SELF_EXIT, GUARD):
            found[f"vs {name}"] = told(cell.against(cells[name]))
        found["most_taken"] = max(run.most_taken for run in cell.runs)
    found["acts"] = cell.runs[0].recycles
    return found


def cases(faults: Iterable[Fault], *, quick: bool) -> Iterable[tuple[Fault, float, float, float]]:
    """The grid, or its middle."""
    for fault in faults:
        for load in LOADS[1:] if quick else LOADS:
            for load_seconds in LOAD_SECONDS[1:2] if quick else LOAD_SECONDS:
                for job_seconds in JOB_SECONDS[:1] if quick else JOB_SECONDS:
                    yield fault, load, load_seconds, job_seconds


def show(case: dict[str, Any]) -> None:
    print(
        f"\n{case['fault']}, load {case['load']:.0%}, weights load in {case['load_seconds']:g} s, "
        f"jobs of {case['job_seconds']:g} s"
    )
    lines = [COLUMNS]
    for found in case["arms"]:
        ratio = found["vs_best_rival"]
        lines.append(
            (
                found["arm"],
                found["setting"],
                f"{found['lost'][0]:,.0f} ± {found['lost'][2] - found['lost'][0]:,.0f}",
                f"{found['accepted_per_hour'][0]:,.0f}",
                f"{found['interrupted'][0]:.1f}",
                f"{found['keys_lost'][0]:.1f}",
                f"{found['oom_kills'][0]:.1f}",
                f"{ratio[0]:.3f} ({ratio[1]:.3f} to {ratio[2]:.3f})",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))


def run(faults: list[Fault], seeds: int, *, quick: bool) -> list[dict[str, Any]]:
    """Every case, shown when it is done."""
    done = []
    for fault, load, load_seconds, job_seconds in cases(faults, quick=quick):
        cells = compare(fault, load, load_seconds, job_seconds, seeds, ARMS)
        found = {
            "fault": fault.value,
            "load": load,
            "load_seconds": load_seconds,
            "job_seconds": job_seconds,
            "seeds": seeds,
            "arms": [row(cell, cells) for cell in cells.values()],
        }
        show(found)
        done.append(found)
    return done


def merged(path: Path | None, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With the cases of faults that were not run, from an existing file; in the order of the faults."""
    new = {case["fault"] for case in cases}
    kept = json.loads(path.read_text())["cases"] if path is not None and path.exists() else []
    order = [fault.value for fault in Fault]
    both = [*(case for case in kept if case["fault"] not in new), *cases]
    return sorted(both, key=lambda case: order.index(case["fault"]))


def file_text(found: dict[str, Any]) -> str:
    """As JSON with a line for each case: of hundreds of them, a line for each figure would be a book."""
    about = {name: value for name, value in found.items() if name != "cases"}
    cases = ",\n".join(f"  {json.dumps(case)}" for case in found["cases"])
    return json.dumps(about, indent=1)[:-2] + f',\n "cases": [\n{cases}\n ]\n}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the middle of the grid, two seeds")
    parser.add_argument("--faults", nargs="*", choices=[f.value for f in Fault], metavar="NAME")
    parser.add_argument("--seeds", type=int, choices=range(2, 11), metavar="2..10")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--from", dest="source", type=Path, help="show and draw an earlier result")
    parser.add_argument("--markdown", action="store_true", help="the tables of the docs")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.source:
        found = json.loads(options.source.read_text())
        for case in found["cases"]:
            show(case)
    else:
        faults = [Fault(name) for name in options.faults] if options.faults else list(Fault)
        began = time.process_time()
        cases = run(faults, options.seeds or (2 if options.quick else 4), quick=options.quick)
        found = {
            **stamp(),
            "workers": WORKERS,
            "jobs_per_worker_at_full_load": JOBS,
            "cpu_seconds": round(time.process_time() - began, 1),
            "cases": merged(options.json, cases),
        }
        print(f"\n{found['cpu_seconds']} CPU seconds")
        if options.json:
            options.json.write_text(file_text(found))
    if options.png:
        draw(found, options.png)
    if options.markdown:
        print("", table(found, 1.0), table(found, 0.8), edges(found), sep="\n\n")


if __name__ == "__main__":
    main()
