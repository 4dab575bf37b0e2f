"""What steps and guidance do to the small checkpoint, judged by the local network's own scorer.

    python -m sn17_bench.sampling CHECKPOINT [--cases 200] [--grid steps|guidance|all] [--json FILE]

Held-out prompts only (never trained on, fixed list). Per setting: acceptance at the default threshold,
occupancy IoU, share of gaussians of the right colour, gaussians per asset, each with a 95 % interval over
prompts. Many objects share a batch here, so seconds are of the batch; a worker's own are in docs/engine.md.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
for room in ("dev/train", "services/trellis", "libs/splats", "libs/scene", "libs/contract", "dev/devnet"):
    sys.path.append(str(ROOT / room / "src"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from sn17_devnet.scorer import score_text  # noqa: E402
from sn17_splats import Splats, write_ply  # noqa: E402
from sn17_train.data import arrangements  # noqa: E402
from sn17_train.evaluate import Result, evaluate, held_out_cases  # noqa: E402
from sn17_train.evaluate import Setting as StageSetting  # noqa: E402
from sn17_trellis.engine.pipeline import Pipeline, load_pipeline  # noqa: E402

THRESHOLD = 0.6
"""Score from which the local validators accept, as their settings have it."""

STEPS = [(s, n) for s in (12, 25, 50, 60) for n in (12, 25, 35, 50)]
OLD, NEW, OWN = (9.0, 4.0), (7.5, 3.5), (3.0, 3.0)
EMPTY = np.empty((0, 17), np.float32)

Setting = tuple[tuple[int, int], tuple[float, float]]
"""Steps and guidance, of structure and latents."""

GRIDS: dict[str, list[Setting]] = {
    "guidance": [
        ((25, 25), OWN),
        *(((25, 25), pair) for pair in ((0.0, 0.0), (1.0, 1.0), (1.5, 1.5), (5.0, 3.0), NEW, OLD)),
        ((60, 50), NEW),
        ((50, 35), OLD),
        ((60, 50), OWN),
    ],
    "steps": [(steps, NEW) for steps in STEPS],
}
GRIDS["all"] = GRIDS["guidance"] + [each for each in GRIDS["steps"] if each not in GRIDS["guidance"]]


def splats_of(table: Any) -> Splats:
    """The engine's packed gaussians [M, 17] as splats."""
    return Splats(table[:, :3], table[:, 10:13], table[:, 13:17], table[:, 9], table[:, 6:9])


def judge(prompt: str, splats: Splats) -> float:
    """The validators' score of one asset."""
    return score_text(base64.b64encode(write_ply(splats)).decode(), prompt, compression=0).value


def judge_table(prompt: str, table: Any) -> float:
    """The same of packed gaussians, which travel between processes as one array."""
    return judge(prompt, splats_of(table))


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return middle - half, middle + half


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval."""
    return float(np.mean(values)), float(1.96 * np.std(values, ddof=1) / math.sqrt(len(values)))


@dataclass(frozen=True, slots=True)
class Sampled:
    """One setting's assets, being scored in other processes."""

    setting: Setting
    results: list[Result]
    seconds: float
    scores: Iterator[float]

    def row(self) -> dict[str, Any]:
        """One row of the table, once the scores are there."""
        (structure_steps, latent_steps), (structure_cfg, latent_cfg) = self.setting
        results, scores = self.results, list(self.scores)
        accepted = float(np.mean([score >= THRESHOLD for score in scores]))
        return {
            "steps": f"{structure_steps}/{latent_steps}",
            "guidance": f"{structure_cfg}/{latent_cfg}",
            "accepted": accepted,
            "accepted_interval": interval(accepted, len(results)),
            "score": spread(scores),
            "iou": spread([r.iou for r in results]),
            "control": spread([r.control for r in results]),
            "colour": spread([r.colour for r in results]),
            "gaussians": spread([float(r.gaussians) for r in results]),
            "seconds_per_asset": self.seconds / len(results),
        }


def sample(
    pipeline: Pipeline, cases: list[Any], setting: Setting, batch: int, pool: ProcessPoolExecutor
) -> Sampled:
    """Make every case's asset; the scores come later."""
    (structure_steps, latent_steps), (structure_cfg, latent_cfg) = setting
    structure = pipeline.defaults[0].override(steps=structure_steps, cfg_strength=structure_cfg)
    latents = pipeline.defaults[1].override(steps=latent_steps, cfg_strength=latent_cfg)
    started = time.perf_counter()
    results = list(evaluate(pipeline, cases, StageSetting(structure, latents), batch=batch))
    seconds = time.perf_counter() - started
    tables = [result.table for result in results]
    scores = pool.map(judge_table, [result.case.prompt for result in results], tables, chunksize=4)
    return Sampled(setting, [replace(result, table=EMPTY) for result in results], seconds, scores)


def keep(rows: list[dict[str, Any]], sampled: Sampled, file: Path | None) -> None:
    """Add a row, and write what there is."""
    rows.append(sampled.row())
    if file:
        file.write_text(json.dumps({"cases": len(sampled.results), "rows": rows}, indent=1) + "\n")


def report(rows: list[dict[str, Any]]) -> None:
    """The table of docs/sampling.md."""
    print("| steps | guidance | accepted | score | IoU | control | right colour | gaussians |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        low, high = row["accepted_interval"]
        cells = [f"{row[name][0]:.3f} ± {row[name][1]:.3f}" for name in ("score", "iou", "control", "colour")]
        print(
            f"| {row['steps']} | {row['guidance']} | {row['accepted']:.1%} ({low:.0%} to {high:.0%}) | "
            f"{' | '.join(cells)} | {row['gaussians'][0]:,.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--grid", choices=tuple(GRIDS), default="all")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2, help="processes that score")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no setting after so long")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device.type == "cpu" else None
    started, rows = time.monotonic(), []
    with ProcessPoolExecutor(args.workers) as pool:
        pool.submit(judge_table, "a red cube", np.ones((8, 17), np.float32))
        cases = held_out_cases(arrangements(), args.cases)
        pipeline = load_pipeline(args.checkpoint, device, dtype=dtype)
        waiting: deque[Sampled] = deque()
        for setting in GRIDS[args.grid]:
            if time.monotonic() - started < args.seconds:
                waiting.append(sample(pipeline, cases, setting, args.batch, pool))
            # Scoring takes the processors while the next setting is sampled.
            while len(waiting) > 1:
                keep(rows, waiting.popleft(), args.json)
        while waiting:
            keep(rows, waiting.popleft(), args.json)
    report(rows)


if __name__ == "__main__":
    main()
