"""What the fast lane costs in quality, on a trained checkpoint whose prompts need guidance.

    python -m sn17_bench.lanes CHECKPOINT [--cases 512] [--processes 4] [--json FILE]

Needs `sn17-trellis calibrate CHECKPOINT --preset phase1` first. Held-out prompts, each part of the lane
alone and together, beside plain Euler steps at as many forwards. Drift is the relative L2 distance of a
stage's latents from a solution of 250 Euler steps, on the same noise (and, for the latents, the same voxels:
the solution's). PSNR is that of two views of the asset, at 128 pixels as validators draw them, against
the asset of both solutions; 60 dB stands for no difference. Accepted are assets that reach the threshold of
the local validators. Differences are paired by prompt, intervals 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sn17_fixer.render.camera import validator_camera
from sn17_fixer.render.metrics import psnr
from sn17_fixer.render.scene import render, to_bytes, validator_model
from sn17_train.data import arrangements
from sn17_train.evaluate import Batch, held_out_cases
from sn17_trellis.engine.calibration import Calibration, read_calibration
from sn17_trellis.engine.config import EXACT, SamplerParams, Savings
from sn17_trellis.engine.pipeline import load_pipeline
from sn17_trellis.engine.sampler import forward_count
from torch import Tensor

from sn17_bench.sampling import interval, judge_table, splats_of, spread

SOLUTION_STEPS = 250
VIEWS, PIXELS, NO_DIFFERENCE = (1, 9), 128, 60.0
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
    difference = (n.full.params, Savings(unconditional_every=every))
    latents["lane: difference alone"] = difference
    latents["plain, forwards of the difference"] = (
        plain_with(n.full.params, forward_count(*difference)),
        EXACT,
    )
    solver = latents["lane: solver alone"]
    latents["plain, forwards of the solver"] = (plain_with(n.full.params, forward_count(*solver)), EXACT)
    latents["lane: together"] = (chosen.params, chosen.savings)
    same = ("full", "plain 25", "plain 12", "plain 6", "plain, forwards of the lane", "no guidance")
    assets = {name: (name, name) for name in same}
    assets["lane: schedule"] = ("lane: schedule", "full")
    assets["lane: difference"] = ("full", "lane: difference alone")
    assets["lane: solver"] = ("full", "lane: solver alone")
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


Pictures = list[NDArray[np.uint8]]


def pictures_of(table: NDArray[np.float32]) -> Pictures:
    """What the validators' cameras see of packed gaussians."""
    model = validator_model(splats_of(table))
    return [to_bytes(render(model, validator_camera(view, PIXELS))[0]) for view in VIEWS]


def judged(prompt: str, table: NDArray[np.float32], wanted: Pictures) -> tuple[float, float]:
    """Score of an asset, and its PSNR against the solution's pictures."""
    likeness = psnr(np.concatenate(pictures_of(table)), np.concatenate(wanted))
    return judge_table(prompt, table), min(likeness, NO_DIFFERENCE)


Found = dict[str, dict[str, list[float]]]
"""Values of every case, by what is measured and by way."""


@torch.inference_mode()
def measure_batch(
    part: Batch, of: Ways, found: Found, scorers: ProcessPoolExecutor
) -> list[tuple[str, list[Future[tuple[float, float]]]]]:
    """Sample every way for one batch; drift and IoU are added to `found`, scores and PSNR come later."""

    def add(kind: str, name: str, values: list[float]) -> None:
        found[kind].setdefault(name, []).extend(values)

    others = [case.arrangement.occupancy() for case in part.cases]
    structures = {name: part.structure(*way) for name, way in of.structure.items()}
    want = structures["solution"].flatten(1)
    for name, latent in structures.items():
        apart = (latent.flatten(1) - want).norm(dim=1) / want.norm(dim=1)
        add("structure", name, [float(x) for x in apart])
    voxels = part.voxels(structures["solution"])
    exact = part.latents(voxels, *of.latents["solution"])
    wanted = [scorers.submit(pictures_of, each.table) for each in part.results(voxels, exact, others)]
    for name, way in of.latents.items():
        slat = exact if name == "solution" else part.latents(voxels, *way)
        add("latents", name, per_case(slat - exact, exact, voxels.batch, len(part.cases)))
    waiting = []
    for name, (first, second) in of.assets.items():
        grid = part.voxels(structures[first])
        results = list(part.results(grid, part.latents(grid, *of.latents[second]), others))
        add("iou", name, [each.iou for each in results])
        scores = [
            scorers.submit(judged, each.case.prompt, each.table, reference.result())
            for each, reference in zip(results, wanted, strict=True)
        ]
        waiting.append((name, scores))
    return waiting


def shard(checkpoint: Path, count: int, piece: range, batch: int, seconds: float) -> Found:
    """Per way and case of one piece of `count` cases: drift of both stages; score, IoU and PSNR of assets.

    No batch is begun after so many seconds.
    """
    started = time.monotonic()
    cases = held_out_cases(arrangements(), count)[piece.start : piece.stop]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = load_pipeline(checkpoint, device, dtype=torch.float32 if device.type == "cpu" else None)
    calibration = read_calibration(checkpoint)
    assert calibration is not None, "run sn17-trellis calibrate first"
    of = ways(calibration)
    found: Found = {kind: {} for kind in ("structure", "latents", "iou", "score", "psnr")}
    waiting: list[tuple[str, list[Future[tuple[float, float]]]]] = []
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as scorers:
        for start in range(0, len(cases), batch):
            if time.monotonic() - started > seconds:
                break
            part = Batch.of(pipeline, cases[start : start + batch], piece.start + start)
            waiting += measure_batch(part, of, found, scorers)
        for name, scores in waiting:
            values = [score.result() for score in scores]
            found["score"].setdefault(name, []).extend(value[0] for value in values)
            found["psnr"].setdefault(name, []).extend(value[1] for value in values)
    return found


def paired(values: list[float], base: list[float]) -> tuple[float, float]:
    """Mean difference and half width of its 95 % interval."""
    return spread([a - b for a, b in zip(values, base, strict=True)])


def summary(found: Found, of: Ways, threshold: float) -> dict[str, Any]:
    """Means with intervals, and differences from plain 25 (drift) and from full (acceptance, score)."""
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
            "score_minus_full": paired(found["score"][name], found["score"]["full"]),
            "psnr": spread(found["psnr"][name]),
            "iou": spread(found["iou"][name]),
        }
    return rows


def joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two runs over different prompts as one: means by their prompts, half widths as of independent runs."""
    if [first[key] for key in ("checkpoint", "threshold")] != [
        second[k] for k in ("checkpoint", "threshold")
    ]:
        raise SystemExit("the two runs are of different checkpoints or thresholds")
    cases = first["cases"] + second["cases"]
    shares = [run["cases"] / cases for run in (first, second)]

    def mean(a: float, b: float) -> float:
        return shares[0] * a + shares[1] * b

    def join(name: str, a: Any, b: Any) -> Any:
        if isinstance(a, dict):
            return {key: join(key, a[key], b[key]) for key in a}
        if isinstance(a, list):
            return [mean(a[0], b[0]), math.hypot(shares[0] * a[1], shares[1] * b[1])]
        return mean(a, b) if name == "accepted" else a

    stages = {name: join(name, first[name], second[name]) for name in ("structure", "latents", "assets")}
    for row in stages["assets"].values():
        row["accepted_interval"] = interval(row["accepted"], cases)
    head = {key: first[key] for key in ("threshold", "checkpoint")}
    return {"cases": cases, **head, "seconds": first["seconds"] + second["seconds"], **stages}


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
    print("\n| asset | forwards | accepted | minus full | score | minus full | PSNR, dB | IoU |")
    print("|---|---|---|---|---|---|---|---|")
    for name, row in rows["assets"].items():
        apart, lower = row["accepted_minus_full"], row["score_minus_full"]
        print(
            f"| {name} | {row['forwards']} | {row['accepted']:.1%} | {apart[0]:+.1%} ± {apart[1]:.1%} | "
            f"{row['score'][0]:.3f} | {lower[0]:+.3f} ± {lower[1]:.3f} | "
            f"{row['psnr'][0]:.1f} ± {row['psnr'][1]:.1f} | {row['iou'][0]:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cases", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--processes", type=int, default=4, help="shards of the cases, side by side")
    parser.add_argument("--threshold", type=float, default=0.6)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no batch after so long")
    parser.add_argument("--skip", type=int, default=0, help="of each shard's prompts, where a run goes on")
    parser.add_argument("--join", type=Path, nargs=2, help="print and keep two such runs as one, and end")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    started = time.monotonic()
    if args.join:
        rows = joined(*(json.loads(file.read_text()) for file in args.join))
        report(rows)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1) + "\n")
        return
    calibration = read_calibration(args.checkpoint)
    if calibration is None:
        parser.error(f"{args.checkpoint} has no calibration: run sn17-trellis calibrate first")
    size = math.ceil(args.cases / args.processes)
    pieces = [range(start + args.skip, min(start + size, args.cases)) for start in range(0, args.cases, size)]
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        run: Callable[..., Any] = pool.submit
        futures = [
            run(shard, args.checkpoint, args.cases, piece, args.batch, args.seconds) for piece in pieces
        ]
        shards = [future.result() for future in futures]
    found: Found = {}
    for part in shards:
        for kind, table in part.items():
            for name, values in table.items():
                found.setdefault(kind, {}).setdefault(name, []).extend(values)
    rows = summary(found, ways(calibration), args.threshold)
    report(rows)
    seconds = time.monotonic() - started
    cases = len(found["iou"]["full"])
    print(f"\n{cases} prompts, {seconds:.0f} s")
    if args.json:
        head = {
            "cases": cases,
            "threshold": args.threshold,
            "checkpoint": calibration.checkpoint,
            "seconds": seconds,
        }
        args.json.write_text(json.dumps({**head, **rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
