"""``sn17-trellis compare``: two ways to run one checkpoint, side by side from one seed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from sn17_service.contract import GenerationKind
from sn17_splats import read_ply, write_ply

from sn17_trellis.backend import Backend, Job, Sampling
from sn17_trellis.quality import digest, drift, measure
from sn17_trellis.reference_backend import ReferenceBackend
from sn17_trellis.torch_backend import TorchBackend, TorchConfig


def run(backend: Backend, job: Job) -> tuple[dict[str, Any], bytes, Any]:
    """Load, warm up, generate once; figures, PLY and quality."""
    started = time.perf_counter()
    backend.load()
    loaded = time.perf_counter()
    backend.generate(job, lambda *_: None, lambda: False)
    warm = time.perf_counter()
    made = backend.generate(job, lambda *_: None, lambda: False)
    seconds = time.perf_counter() - warm
    ply = made.asset if isinstance(made.asset, bytes) else write_ply(made.asset)
    quality = measure(read_ply(ply))
    return (
        {
            "backend": backend.identity,
            "load_seconds": round(loaded - started, 3),
            "first_seconds": round(warm - loaded, 3),
            "seconds": round(seconds, 3),
            "stage_seconds": {name: round(value, 4) for name, value in made.stage_seconds.items()},
            "gaussians": made.gaussians,
            "sha256": digest(ply),
            "quality": asdict(quality),
        },
        ply,
        quality,
    )


def main(argv: Sequence[str]) -> int:
    """Print both sets of figures as JSON, with the drift between them; write both assets where asked."""
    parser = argparse.ArgumentParser(prog="sn17-trellis compare", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--preset", default=None)
    parser.add_argument("--against", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--into", type=Path, help="folder for ours.ply and other.ply")
    args = parser.parse_args(argv)
    job = Job(GenerationKind.TASK, args.seed, prompt=args.prompt, sampling=Sampling(preset=args.preset))
    ours: Backend = TorchBackend(TorchConfig(text_checkpoint=args.checkpoint))
    other: Backend
    if args.against == "reference":
        other = ReferenceBackend(args.checkpoint)
    else:
        other = TorchBackend(TorchConfig(text_checkpoint=args.checkpoint, device="cpu"))
    results = []
    for name, backend in (("ours", ours), ("other", other)):
        figures, ply, quality = run(backend, job)
        results.append((name, figures, quality))
        if args.into:
            args.into.mkdir(parents=True, exist_ok=True)
            (args.into / f"{name}.ply").write_bytes(ply)
        backend.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    report: dict[str, Any] = {name: figures for name, figures, _ in results}
    report["drift"] = drift(results[0][2], results[1][2])
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return 0
