"""`sn17-train`: train the small checkpoint, in chunks that can be resumed, and say how good it is."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sn17_trellis.engine.pipeline import load_pipeline

from sn17_train.budget import Budget
from sn17_train.data import Corpus, arrangements
from sn17_train.evaluate import Setting, evaluate, held_out_cases
from sn17_train.export import export
from sn17_train.flows import train_flows
from sn17_train.models import Models
from sn17_train.stages import train_gaussians, train_structure
from sn17_train.start import fitted_structures, take

UNFINISHED = 75
"""Exit code where the chunk ended first: the same command goes on."""


def main(argv: list[str] | None = None) -> int:
    """Run the stages that the state does not hold yet; after the last, export and evaluate."""
    parser = argparse.ArgumentParser(prog="sn17-train", description=__doc__)
    parser.add_argument("output", type=Path, help="directory of the checkpoint")
    parser.add_argument("--state", type=Path, help="directory that keeps what is trained between chunks")
    parser.add_argument("--chunk", type=float, default=float("inf"), metavar="SECONDS",
                        help="end with code 75 after so long in the flows; run again to go on")  # fmt: skip
    parser.add_argument("--start", type=Path, metavar="CHECKPOINT",
                        help="train this one's flows further; its decoders stay")  # fmt: skip
    parser.add_argument("--fit", type=int, default=150, help="steps that move its samples to the scenes")
    parser.add_argument("--size", choices=("full", "smoke"), default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--structure", type=float, nargs=2, default=(4000, 95), metavar=("STEPS", "SECONDS"))
    parser.add_argument("--gaussians", type=float, nargs=2, default=(1500, 15), metavar=("STEPS", "SECONDS"))
    parser.add_argument("--flows", type=float, nargs=2, default=(8000, 480), metavar=("STEPS", "SECONDS"))
    parser.add_argument("--batches", type=int, nargs=4, default=(32, 16, 128, 64),
                        help="of structure, gaussians, structure flow and latent flow")  # fmt: skip
    parser.add_argument("--wrong-captions", type=float, default=0.0, metavar="SHARE",
                        help="of the flows' scenes, shown with another's prompt")  # fmt: skip
    parser.add_argument("--arrangements", type=int, help="train on so many only")
    parser.add_argument("--cases", type=int, default=64, help="held-out prompts to evaluate")
    parser.add_argument("--sampling-steps", type=int, default=25, help="of either flow, in the evaluation")
    args = parser.parse_args(argv)
    if args.start and args.state:
        parser.error("--start begins anew: it goes with no --state")
    started, device = time.monotonic(), torch.device(args.device)

    def log(values: dict[str, Any]) -> None:
        line = {"seconds": round(time.monotonic() - started, 1), **values}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    models = Models.make(args.size, device, args.seed)
    log({"parameters": models.parameters()})
    pool = [each.to(device) for each in arrangements(args.arrangements)]
    corpus = Corpus.of(pool)
    held_out = sum(each.held_out for each in pool)
    log({"arrangements": len(pool), "held_out": held_out, "prompts": len(corpus.prompts)})
    rng = np.random.default_rng(args.seed)
    targets = None
    if args.start:
        take(models, args.start)
        targets = fitted_structures(models, pool, args.fit, log)
    elif not models.load("structure", args.state):
        train_structure(models, pool, _budget(args.structure), args.batches[0], rng, log)
        models.save("structure", args.state)
    if not args.start and not models.load("gaussians", args.state):
        train_gaussians(models, corpus, _budget(args.gaussians), args.batches[1], rng, log)
        models.save("gaussians", args.state)
    budget, batches = _budget(args.flows), (args.batches[2], args.batches[3])
    budget.chunk = args.chunk
    averages = train_flows(
        models, pool, corpus, budget, batches, rng, log, args.state, args.wrong_captions, targets
    )
    if averages is None:
        log({"unfinished": budget.progress()})
        return UNFINISHED
    export(models, averages, args.output)
    pipeline = load_pipeline(args.output, device, dtype=torch.float32 if device.type == "cpu" else None)
    structure, latents = (defaults.override(steps=args.sampling_steps) for defaults in pipeline.defaults)
    results = list(evaluate(pipeline, held_out_cases(pool, args.cases), Setting(structure, latents)))
    figures = {
        "cases": len(results),
        "iou": _mean([each.iou for each in results]),
        "iou_unseen_arrangement": _mean([each.iou for each in results if each.case.arrangement.held_out]),
        "control": _mean([each.control for each in results]),
        "colour": _mean([each.colour for each in results]),
        "gaussians": _mean([float(each.gaussians) for each in results]),
        "flow_steps": budget.step,
    }
    log({"held_out": figures})
    return 0


def _budget(limits: tuple[float, float]) -> Budget:
    return Budget(int(limits[0]), limits[1])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    sys.exit(main())
