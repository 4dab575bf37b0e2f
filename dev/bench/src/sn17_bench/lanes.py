"""What the fast lane costs in quality, on a trained checkpoint whose prompts need guidance.

    python -m sn17_bench.lanes CHECKPOINT [--cases 512] [--processes 4] [--json FILE]

Needs `sn17-trellis calibrate CHECKPOINT --preset phase1` first. Held-out prompts, each part of the lane
alone and together, beside plain Euler steps at as many forwards. Drift is the relative L2 distance of a
stage's latents from a solution of 250 Euler steps, on the same noise (and, for the latents, the same voxels).
Accepted are assets that reach the local validators' threshold. Differences are paired by prompt, intervals
95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sn17_train.data import arrangements
from sn17_train.evaluate import Batch, held_out_cases
from sn17_trellis.engine.calibration import Calibration, read_calibration
from sn17_trellis.engine.config import EXACT, SamplerParams, Savings
from sn17_trellis.engine.pipeline import load_pipeline
from sn17_trellis.engine.sampler import forward_count
from torch import Tensor

from sn17_bench.sampling import interval, judge_table, spread

SOLUTION_STEPS = 250
Way = tuple[SamplerParams, Savings]


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways to sample each stage by name, and the pairs of them that make whole assets."""

    structure: dict[str, Way]
    latents: dict[str, Way]
    assets: dict[str, tuple[str, str]]


def plain_with(params: SamplerParams, forwards: int) -> SamplerParams:
    """Euler steps with at most so many forwards."""
    counts = {steps: forward_count(params.override(steps=steps)) for steps in range(1, 101)}
    return params.override(steps=max(steps for steps, count in counts.items() if count <= max(forwards, 2)))


def ways(calibration: Calibration) -> Ways:
    """Full, halved and few steps, no guidance, each part of the lane, all of it, and plain at its price."""
    s, n = calibration.structure, calibration.latents

    def common(full: SamplerParams, lane: int) -> dict[str, Way]:
        return {
            "solution": (full.override(steps=SOLUTION_STEPS), EXACT),
            "full": (full, EXACT),
            "plain 25": (full.override(steps=25), EXACT),
            "plain 12": (full.override(steps=12), EXACT),
            "plain 6": (full.override(steps=6), EXACT),
            "plain, forwards of the lane": (plain_with(full, lane), EXACT),
            "no guidance": (full.override(cfg_strength=0.0), EXACT),
        }

    structure = common(s.full.params, s.chosen.forwards)
    structure["lane: schedule"] = (s.chosen.params, s.chosen.savings)
    latents = common(n.full.params, n.chosen.forwards)
    chosen = n.chosen
    latents["lane: solver alone"] = (chosen.params, Savings(solver=chosen.savings.solver))
    every = max(2, chosen.savings.unconditional_every)
    latents["lane: difference alone"] = (n.full.params, Savings(unconditional_every=every))
    latents["lane: together"] = (chosen.params, chosen.savings)
    same = ("full", "plain 25", "plain 12", "plain 6", "plain, forwards of the lane", "no guidance")
    assets = {name: (name, name) for name in same}
    assets["lane: schedule"] = ("lane: schedule", "full")
    assets["lane: latents"] = ("full", "lane: together")
    assets["lane: together"] = ("lane: schedule", "lane: together")
    return Ways(structure, latents, assets)


def per_case(apart: Tensor, want: Tensor, batch: Tensor, count: int) -> list[float]:
    """Relative L2 distance of each case's rows [N, C]."""
    sums = [
        torch.zeros(count, device=apart.device).index_add_(0, batch, (each.float() ** 2).sum(1))
        for each in (apart, want)
    ]
    return [float(x) for x in (sums[0] / sums[1]).sqrt()]


@torch.inference_mode()
def shard(checkpoint: Path, count: int, piece: range, batch: int) -> dict[str, dict[str, list[float]]]:
    """Per way and case of one piece of `count` cases: drift of both stages, score and IoU of the assets."""
    cases = held_out_cases(arrangements(), count)[piece.start : piece.stop]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = load_pipeline(checkpoint, device, dtype=torch.float32 if device.type == "cpu" else None)
    calibration = read_calibration(checkpoint)
    assert calibration is not None, "run sn17-trellis calibrate first"
    of = ways(calibration)
    out: dict[str, dict[str, list[float]]] = {"structure": {}, "latents": {}, "score": {}, "iou": {}}

    def add(kind: str, name: str, values: list[float]) -> None:
        out[kind].setdefault(name, []).extend(values)

    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as scorers:
        waiting: list[tuple[str, Any]] = []
        for start in range(0, len(cases), batch):
            part = Batch.of(pipeline, cases[start : start + batch], piece.start + start)
            others = [case.arrangement.occupancy() for case in part.cases]
            structures = {name: part.structure(*way) for name, way in of.structure.items()}
            for name, latent in structures.items():
                want = structures["solution"].flatten(1)
                add(
                    "structure",
                    name,
                    [float(x) for x in (latent.flatten(1) - want).norm(dim=1) / want.norm(dim=1)],
                )
            voxels = part.voxels(structures["full"])
            slats = {name: part.latents(voxels, *way) for name, way in of.latents.items()}
            for name, slat in slats.items():
                add(
                    "latents",
                    name,
                    per_case(slat - slats["solution"], slats["solution"], voxels.batch, len(part.cases)),
                )
            for name, (first, second) in of.assets.items():
                grid = voxels if first == "full" else part.voxels(structures[first])
                slat = slats[second] if first == "full" else part.latents(grid, *of.latents[second])
                results = list(part.results(grid, slat, others))
                add("iou", name, [each.iou for each in results])
                scores = scorers.map(
                    judge_table, [r.case.prompt for r in results], [r.table for r in results]
                )
                waiting.append((name, scores))
            while len(waiting) > len(of.assets):
                add("score", waiting[0][0], list(waiting.pop(0)[1]))
        for name, scores in waiting:
            add("score", name, list(scores))
    return out


def paired(values: list[float], base: list[float]) -> tuple[float, float]:
    """Mean difference and half width of its 95 % interval."""
    return spread([a - b for a, b in zip(values, base, strict=True)])


def summary(found: dict[str, dict[str, list[float]]], of: Ways, threshold: float) -> dict[str, Any]:
    """Means with intervals, and differences from plain 25 (drift) and from full (acceptance)."""
    rows: dict[str, Any] = {"structure": {}, "latents": {}, "assets": {}}
    for stage, table in (("structure", of.structure), ("latents", of.latents)):
        for name, way in table.items():
            values = found[stage][name]
            rows[stage][name] = {
                "steps": way[0].steps,
                "forwards": forward_count(*way),
                "drift": spread(values),
                "drift_minus_plain_25": paired(values, found[stage]["plain 25"]),
            }
    for name, (first, second) in of.assets.items():
        accepted = [float(score >= threshold) for score in found["score"][name]]
        full = [float(score >= threshold) for score in found["score"]["full"]]
        share = float(np.mean(accepted))
        rows["assets"][name] = {
            "forwards": forward_count(*of.structure[first]) + forward_count(*of.latents[second]),
            "accepted": share,
            "accepted_interval": interval(share, len(accepted)),
            "accepted_minus_full": paired(accepted, full),
            "score": spread(found["score"][name]),
            "iou": spread(found["iou"][name]),
        }
    return rows


def report(rows: dict[str, Any]) -> None:
    """The tables of docs/engine.md."""
    for stage in ("structure", "latents"):
        print(f"\n| {stage} | steps | forwards | drift | minus plain 25 |\n|---|---|---|---|---|")
        for name, row in rows[stage].items():
            drift, apart = row["drift"], row["drift_minus_plain_25"]
            print(
                f"| {name} | {row['steps']} | {row['forwards']} | {drift[0]:.4f} ± {drift[1]:.4f} | "
                f"{apart[0]:+.4f} ± {apart[1]:.4f} |"
            )
    print("\n| asset | forwards | accepted | minus full | score | IoU |\n|---|---|---|---|---|---|")
    for name, row in rows["assets"].items():
        apart = row["accepted_minus_full"]
        print(
            f"| {name} | {row['forwards']} | {row['accepted']:.1%} | {apart[0]:+.1%} ± {apart[1]:.1%} | "
            f"{row['score'][0]:.3f} | {row['iou'][0]:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cases", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4, help="shards of the cases, side by side")
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started = time.monotonic()
    calibration = read_calibration(args.checkpoint)
    if calibration is None:
        parser.error(f"{args.checkpoint} has no calibration: run sn17-trellis calibrate first")
    size = math.ceil(args.cases / args.processes)
    pieces = [range(start, min(start + size, args.cases)) for start in range(0, args.cases, size)]
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        run: Callable[..., Any] = pool.submit
        futures = [run(shard, args.checkpoint, args.cases, piece, args.batch) for piece in pieces]
        shards = [future.result() for future in futures]
    found: dict[str, dict[str, list[float]]] = {}
    for part in shards:
        for kind, table in part.items():
            for name, values in table.items():
                found.setdefault(kind, {}).setdefault(name, []).extend(values)
    rows = summary(found, ways(calibration), args.threshold)
    report(rows)
    seconds = time.monotonic() - started
    print(f"\n{args.cases} prompts, {seconds:.0f} s")
    if args.json:
        head = {"cases": args.cases, "checkpoint": calibration.checkpoint, "seconds": seconds}
        args.json.write_text(json.dumps({**head, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
