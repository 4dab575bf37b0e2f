"""What each automatic decision earns: the same world with it and without it, in accepted assets.

    python -m sn17_bench.decisions [--json FILE] [--seeds 5] [--days 10] [--only WORD]
    python -m sn17_bench.decisions --page FILE.json [FILE.md]

Miner: the real scheduler, fleet, learning, gate and reading of answers in virtual time, against the real
validators' books. Operator: the real controller against the fleet of its own tests. ``--page`` writes
docs/decisions.md from a result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sn17_bench.ablation import Row, ablations, compare
from sn17_bench.ablation_operator import OperatorRow, operator_rows
from sn17_bench.ablation_page import page

ROOT = Path(__file__).resolve().parents[4]


def _run(number: int, acceptance: float, seeds: int, days: float | None) -> Row:
    return compare(ablations()[number], acceptance, seeds, days)


def miner_rows(seeds: int, days: float | None, only: str) -> list[Row]:
    """Every ablation of the miner at every acceptance, two processes side by side."""
    wanted = [(n, a) for n, each in enumerate(ablations()) if only in each.decision for a in each.acceptances]
    with ProcessPoolExecutor(2) as pool:
        jobs = [pool.submit(_run, number, acceptance, seeds, days) for number, acceptance in wanted]
        rows = []
        for job in jobs:
            row = job.result()
            rows.append(row)
            print(
                f"{row.decision:32} {row.world:32} {row.acceptance:4.0%} {row.ratio:6.3f}"
                f" [{row.low:.3f}, {row.high:.3f}]  {row.accepted:7.1f} {row.accepted_without:7.1f}",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=5, choices=(3, 4, 5, 6, 8, 10))
    parser.add_argument("--days", type=float)
    parser.add_argument("--only", default="", help="ablations whose decision holds this word")
    parser.add_argument("--page", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    if options.page:
        text = page(json.loads(options.page[0].read_text()))
        if len(options.page) > 1:
            options.page[1].write_text(text)
        else:
            sys.stdout.write(text)
        return
    print(f"{'decision':32} {'world':32}  at   ratio  95 % interval      a day   without")
    rows = miner_rows(options.seeds, options.days, options.only)
    operator: list[OperatorRow] = operator_rows(options.only)
    for row in operator:
        print(f"{row.decision:32} {row.world:32}      {row.ratio:6.3f}  {row.good_an_hour:7.1f}")
    if options.json:
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
        found: dict[str, Any] = {
            "commit": commit,
            "date": datetime.now(UTC).date().isoformat(),
            "seeds": options.seeds,
            "days": options.days,
            "miner": [asdict(row) for row in rows],
            "operator": [asdict(row) for row in operator],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
