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

from sn17_train.data import arrangements
from sn17_train.evaluate import evaluate, held_out_cases
from sn17_train.export import export
from sn17_train.stages import Budget, Models, train_flows, train_gaussians, train_structure


def main(argv: list[str] | None = None) -> int:
    """Run the stages that a state file does not hold yet, export, evaluate."""
    parser = argparse.ArgumentParser(prog="sn17-train", description=__doc__)
    parser.add_argument("output", type=Path, help="directory of the checkpoint")
    parser.add_argument("--state", type=Path, help="file that keeps what is trained between chunks")
    parser.add_argument("--size", choices=("full", "smoke"), default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--structure", type=float, nargs=2, default=(4000, 100), metavar=("STEPS", "SECONDS"))
    parser.add_argument("--gaussians", type=float, nargs=2, default=(1500, 25), metavar=("STEPS", "SECONDS"))
    parser.add_argument("--flows", type=float, nargs=2, default=(6000, 300), metavar=("STEPS", "SECONDS"))
    parser.add_argument("--batches", type=int, nargs=4, default=(32, 16, 128, 16),
                        help="of structure, gaussians, structure flow and latent flow")  # fmt: skip
    parser.add_argument("--arrangements", type=int, help="train on so many only")
    parser.add_argument("--cases", type=int, default=64, help="held-out prompts to evaluate")
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    started = time.monotonic()

    def log(values: dict[str, Any]) -> None:
        line = {"seconds": round(time.monotonic() - started, 1), **values}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    models = Models.make(args.size, device, args.seed)
    log({"parameters": {k: sum(p.numel() for p in m.parameters()) for k, m in models.modules().items()}})
    if args.state and args.state.exists():
        _load(models, args.state)
    pool = [each.to(device) for each in arrangements(args.arrangements)]
    log({"arrangements": len(pool), "held_out": sum(each.held_out for each in pool)})
    rng = np.random.default_rng(args.seed)
    plain = {"structure": train_structure, "gaussians": train_gaussians}
    for index, (name, train) in enumerate(plain.items()):
        if name not in models.done:
            steps, seconds = getattr(args, name)
            train(models, pool, Budget(int(steps), seconds), args.batches[index], rng, log)
            models.done[name] = int(steps)
            _save(models, args.state)
    steps, seconds = args.flows
    averages = train_flows(models, pool, Budget(int(steps), seconds), tuple(args.batches[2:]), rng, log)
    for name, module in averages.items():
        models.modules()[name].load_state_dict(module.state_dict())
    _save(models, args.state)
    export(models, averages, args.output)
    pipeline = load_pipeline(args.output, device, dtype=torch.float32 if device.type == "cpu" else None)
    results = list(evaluate(pipeline, held_out_cases(pool, args.cases), *pipeline.defaults))
    figures = {
        "cases": len(results),
        "iou": float(np.mean([each.iou for each in results])),
        "iou_unseen_arrangement": _mean([e.iou for e in results if e.case.arrangement.held_out]),
        "control": float(np.mean([each.control for each in results])),
        "colour": float(np.mean([each.colour for each in results])),
        "gaussians": float(np.mean([each.gaussians for each in results])),
        "flow_steps": models.done.get("flows"),
    }
    log({"held_out": figures})
    (args.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _save(models: Models, path: Path | None) -> None:
    if path is not None:
        state = {name: module.state_dict() for name, module in models.modules().items()}
        torch.save({"modules": state, "done": models.done, "scale": models.latent_scale}, path)


def _load(models: Models, path: Path) -> None:
    saved = torch.load(path, map_location=models.device, weights_only=True)
    for name, module in models.modules().items():
        module.load_state_dict(saved["modules"][name])
    models.done, models.latent_scale = dict(saved["done"]), float(saved["scale"])


if __name__ == "__main__":
    sys.exit(main())
