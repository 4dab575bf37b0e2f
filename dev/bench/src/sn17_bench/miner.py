"""What must hold of the miner, measured.

``python -m sn17_bench.miner day``: an accelerated stretch of a day (cooldown 3 s) with 8 real local
validators, 4 real workers, the real fixer and faults everywhere. ``... memory``: 10,000 tasks among light
fakes. ``python -m sn17_bench.miner table FILE...``: what earlier runs wrote with ``--json``, days added up
(quantiles averaged by tasks).
Idle time is in real seconds, since clocks do not run faster; its baseline is a miner that polls every 10 s,
as the field's reference does, and so waits half of that on average.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sn17_bench.miner_day import SCALE, day
from sn17_bench.miner_memory import memory

POLL_BASELINE_SECONDS = 10.0 / 2
Row = tuple[str, str, str, bool | None]


def day_rows(runs: list[dict[str, Any]]) -> Iterator[Row]:
    """One row per demand: what, measured, demanded, whether it holds (None: for information)."""
    total, fates, outcomes = Counter[str](), Counter[str](), Counter[str]()
    for run in runs:
        total.update({key: value for key, value in run.items() if isinstance(value, int | float)})
        fates.update(run["fates"])
        outcomes.update(run["outcomes"])
    pulled = int(total["pulled"])
    good = fates["submitted"] + fates["validator dropped it"]
    unexplained = fates["no reason"] + fates["open"]
    reasons = {key: count for key, count in fates.items() if key.startswith("reason:")}

    def mean(name: str) -> float:
        return sum((run[name] or 0.0) * run["pulled"] for run in runs) / max(1, pulled)

    idle = mean("idle_mean")
    yield "network time run", f"{total['network_hours']:.1f} h in {total['seconds']:.0f} s", "", None
    yield "tasks pulled", str(pulled), "", None
    yield "non-empty submission", str(fates["submitted"]), "all but the next two rows", None
    yield "validator dropped it", str(fates["validator dropped it"]), "", None
    yield "another documented reason", f"{pulled - good - unexplained} {reasons or ''}", "", None
    yield "without outcome or reason", str(unexplained), "0", unexplained == 0
    yield (
        "handed out, unknown to the journal",
        str(int(total["never_heard_of"])),
        "0",
        total["never_heard_of"] == 0,
    )
    second = int(total["second_completions"])
    yield (
        "second completions of one key",
        f"{second} of {int(total['completed_generations'])}",
        "0",
        second == 0,
    )
    yield "cooldown violations (referee)", str(int(total["violations"])), "0", total["violations"] == 0
    baseline = f"a poll every 10 s waits {POLL_BASELINE_SECONDS:.0f} s"
    yield "mean idle after a cooldown, worker free", f"{idle:.3f} s", f"< 0.5 s ({baseline})", idle < 0.5
    yield "p95 of it", f"{mean('idle_p95'):.3f} s", "", None
    yield (
        "overhead per task p50 / p95",
        f"{mean('overhead_p50'):.3f} / {mean('overhead_p95'):.3f} s",
        "",
        None,
    )
    yield "delivery p50 / p95", f"{mean('delivery_p50'):.2f} / {mean('delivery_p95'):.2f} s", "", None
    yield "success / yield", f"{mean('success'):.1%} / {mean('yield'):.1%}", "", None
    yield "outcomes", ", ".join(f"{key} {count}" for key, count in outcomes.most_common()), "", None
    kills = f"miner {int(total['miner'])}, workers {int(total['workers'])}"
    yield "kill -9", kills, "", None
    yield "validator restarts", str(int(total["validator_restarts"])), "", None
    yield "generations joined by their key", str(int(total["resumed_generations"])), "", None


def memory_rows(run: dict[str, Any]) -> Iterator[Row]:
    """The same for the memory run."""
    growth, half = run["growth_kib_per_1000_tasks"], run["tasks"] / 2000
    yield "tasks", str(run["tasks"]), "", None
    yield "second completions of one key", str(run["second_completions"]), "0", run["second_completions"] == 0
    start, end = run["mib_after_tenth"], run["mib_at_end"]
    yield "memory after a tenth / at the end", f"{start:.1f} / {end:.1f} MiB", "", None
    if growth is not None:
        # The JSON parser's cache of short strings fills up to 1.3 MiB with task ids; nothing else grows.
        share = growth * half / 1024 / end
        yield "growth over the second half", f"{growth * half:.0f} KiB, {share:.1%}", "< 2 %", share < 0.02
    p50, p95 = run["overhead_p50"], run["overhead_p95"]
    yield "overhead per task p50 / p95, saturated", f"{p50:.3f} / {p95:.3f} s", "", None


def show(title: str, rows: Iterator[Row]) -> bool:
    """Print a Markdown table; whether everything demanded holds."""
    print(f"\n{title}\n\n| what | measured | demanded | holds |\n|---|---|---|---|")
    holds = True
    for what, measured, demanded, good in rows:
        print(f"| {what} | {measured} | {demanded} | {'' if good is None else 'yes' if good else '**no**'} |")
        holds = holds and good is not False
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["day", "memory", "table"])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=24 * 3600 * SCALE)
    parser.add_argument("--validators", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--keep-tasks", type=int, default=500, help="that stay in the journal (memory)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep logs and journals here")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.part == "table":
        runs = [json.loads(path.read_text()) for path in options.files]
    else:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.folder or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            if options.part == "day":
                run = day(
                    folder,
                    seconds=options.seconds,
                    validators=options.validators,
                    workers=options.workers,
                    seed=options.seed,
                )
            else:
                run = asyncio.run(memory(folder, tasks=options.tasks, keep_tasks=options.keep_tasks))
        runs = [{"part": options.part} | run]
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(runs[0], indent=1) + "\n")
    days = [run for run in runs if run["part"] == "day"]
    good = show("Accelerated day", day_rows(days)) if days else True
    for run in runs:
        if run["part"] == "memory":
            good = show("Memory", memory_rows(run)) and good
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
