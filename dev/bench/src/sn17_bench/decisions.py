"""What each automatic decision earns: the same world with it and without it, in accepted assets.

    python -m sn17_bench.decisions [--json FILE] [--seeds 5] [--days 10] [--only WORD] [--missing]
    python -m sn17_bench.decisions --page FILE.json POSTMORTEM.json FILE.md

Miner: the real scheduler, fleet, learning, gate and reading of answers in virtual time, against the real
validators' ledgers. Operator: the real controller against a fleet in virtual time. Fixer: assets of the
procedural generator, damaged, repaired and judged by the local validators' scorer. ``--json`` adds to a file
that is there: rows of the same decision and world are replaced, with ``--missing`` only the miner's rows that
it lacks are played. ``--page`` writes docs/decisions.md from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sn17_bench.ablation import Row, compare
from sn17_bench.ablation_fixer import fixer_rows
from sn17_bench.ablation_operator import operator_rows
from sn17_bench.ablation_page import page
from sn17_bench.ablation_scenes import ablations
from sn17_bench.stamp import stamp

_Key = tuple[str, str, float | str]


def miner_rows(seeds: int, days: float | None, only: str, known: frozenset[_Key]) -> Iterator[Row]:
    """Every ablation of the miner at every acceptance, but for those that are known."""
    for ablation in ablations():
        if only in f"{ablation.decision} | {ablation.world}":
            for acceptance in ablation.acceptances:
                if (ablation.decision, ablation.world, acceptance) not in known:
                    yield compare(ablation, acceptance, seeds, days)


class Found:
    """Rows as they come, kept in a file if there is one, each with the commit it was measured at."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: dict[str, list[dict[str, Any]]] = {"miner": [], "operator": [], "fixer": []}
        if path is not None and path.exists():
            known = json.loads(path.read_text())
            self.rows = {part: known[part] for part in self.rows}
        self.stamp = stamp()

    def keys(self, part: str) -> frozenset[_Key]:
        """Decision, world and acceptance of what the file holds."""
        return frozenset(_key(row) for row in self.rows[part])

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Take a row in the place of the one that was there."""
        rows, key = self.rows[part], _key(row)
        stamped = {**row, **self.stamp}
        for number, known in enumerate(rows):
            if _key(known) == key:
                rows[number] = stamped
                break
        else:
            rows.append(stamped)
        interval = f"[{row['low']:.3f}, {row['high']:.3f}]"
        print(f"{key[0]:32} {key[1]:36} {key[2]!s:5} {row['ratio']:7.3f} {interval}", flush=True)
        if self.path is not None:
            self.path.write_text(json.dumps({**self.stamp, **self.rows}, indent=1) + "\n")


def _key(row: dict[str, Any]) -> _Key:
    return row["decision"], row["world"], row.get("acceptance", "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seeds", type=int, default=5, choices=(3, 4, 5, 6, 8, 10))
    parser.add_argument("--days", type=float, help="of the miner's worlds at most; 5 without it")
    parser.add_argument("--only", default="", help="those whose decision and world hold this word")
    parser.add_argument("--missing", action="store_true", help="only the miner's rows that FILE lacks")
    parser.add_argument("--page", type=Path, nargs=3, metavar="FILE")
    options = parser.parse_args()
    if options.page:
        found, postmortem, target = options.page
        target.write_text(page(json.loads(found.read_text()), json.loads(postmortem.read_text())))
        return
    rows = Found(options.json)
    known = rows.keys("miner") if options.missing else frozenset()
    for miner_row in miner_rows(options.seeds, options.days, options.only, known):
        rows.add("miner", asdict(miner_row))
    if options.missing:
        return
    for operator_row in operator_rows(options.only, seeds=options.seeds):
        rows.add("operator", asdict(operator_row))
    for fixer_row in fixer_rows(options.only):
        rows.add("fixer", asdict(fixer_row))


if __name__ == "__main__":
    main()
