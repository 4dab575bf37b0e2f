"""What each kind of damaged opacity does to acceptance, before and after repair, on generated assets.

    python -m sn17_bench.corruption [--assets 24] [--keep DIR] [--json FILE]

Assets are made by the engine from the bundled small checkpoint for held-out prompts, damaged as in
`fixer_quality.py`, repaired by each policy, and judged by the local validators' scorer at its default
threshold. Baselines: as is, and `flat`, the old fix. With --keep the assets are kept, and taken up again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sn17_splats import Splats, read_ply, write_ply
from sn17_train.data import arrangements
from sn17_train.evaluate import Case, held_out_cases
from sn17_trellis.engine.pipeline import Pipeline, Request, load_pipeline
from sn17_trellis.torch_backend import bundled_checkpoint

from sn17_bench.fixer_quality import DAMAGES, POLICIES
from sn17_bench.sampling import THRESHOLD, interval, judge, splats_of

SHOWN = ("as is", "flat", "phase1", "measured")


def asset(pipeline: Pipeline, case: Case, index: int, keep: Path | None) -> Splats:
    """One asset at the checkpoint's own sampling, or the one that was kept."""
    file = keep / f"{index:03}.ply" if keep else None
    if file and file.exists():
        return read_ply(file.read_bytes())
    structure, latents = pipeline.defaults
    splats = splats_of(pipeline.generate(Request(index, structure, latents, prompt=case.prompt)).table)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(write_ply(splats))
    return splats


def measure(damage: str, made: list[tuple[Case, Splats]]) -> dict[str, Any]:
    """One row: share accepted per policy."""
    row: dict[str, Any] = {"damage": damage}
    for policy in SHOWN:
        scores = []
        for index, (case, clean) in enumerate(made):
            logits = DAMAGES[damage](clean.opacity_logits, np.random.default_rng(index))
            repaired = POLICIES[policy](clean.replace(opacity_logits=logits.astype(np.float32)))
            scores.append(judge(case.prompt, repaired))
        accepted = float(np.mean([score >= THRESHOLD for score in scores]))
        row[policy] = {
            "accepted": accepted,
            "interval": interval(accepted, len(made)),
            "score": float(np.mean(scores)),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--assets", type=int, default=24)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pipeline = load_pipeline(bundled_checkpoint(), torch.device("cpu"), dtype=torch.float32)
    cases = held_out_cases(arrangements(), args.assets)
    made = [(case, asset(pipeline, case, index, args.keep)) for index, case in enumerate(cases)]
    rows = []
    print(f"| damage | {' | '.join(SHOWN)} |\n|---|{'---|' * len(SHOWN)}")
    for damage in DAMAGES:
        rows.append(measure(damage, made))
        cells = [f"{rows[-1][policy]['accepted']:.0%}, {rows[-1][policy]['score']:.2f}" for policy in SHOWN]
        print(f"| {damage} | {' | '.join(cells)} |", flush=True)
        if args.json:
            args.json.write_text(json.dumps({"assets": len(made), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
