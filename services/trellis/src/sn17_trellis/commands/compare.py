"""``sn17-trellis compare``: two ways to run one checkpoint, side by side from one seed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sn17_contract.metrics import GenerationKind
from sn17_splats import Splats, read_ply, write_ply

from sn17_trellis.backend import Backend, GenerationError, Job, ModelMissing, Sampling, plain
from sn17_trellis.engine.errors import CheckpointError
from sn17_trellis.quality import Quality, digest, drift, measure
from sn17_trellis.reference_backend import ReferenceBackend
from sn17_trellis.torch_backend import TorchBackend, TorchConfig


def run(backend: Backend, job: Job) -> tuple[dict[str, Any], bytes, Quality]:
    """Load, warm up, generate once; figures, PLY and quality."""
    started = time.perf_counter()
    backend.load()
    loaded = time.perf_counter()
    backend.generate(job, lambda *_: None, lambda: False)
    warm = time.perf_counter()
    made = backend.generate(job, lambda *_: None, lambda: False)
    seconds = time.perf_counter() - warm
    ply = write_ply(made.asset) if isinstance(made.asset, Splats) else plain(made.asset)
    quality = measure(read_ply(ply))
    return (
        {
            "backend": backend.identity,
            "load_seconds": round(loaded - started, 3),
            "first_seconds": round(warm - loaded, 3),
            "seconds": round(seconds, 3),
            "stage_seconds": {name: round(value, 4) for name, value in made.stage_seconds.items()},
            "gaussians": made.gaussians,
            "lane": made.lane,
            "sha256": digest(ply),
            "quality": asdict(quality),
        },
        ply,
        quality,
    )


Draw = Callable[[Splats, Splats], tuple[Mapping[str, float | None], bytes]]
"""Renders two assets: figures of their likeness, and a PNG of both."""


def installed_renderer() -> Draw | None:
    """What an installed package offers as ``sn17.side_by_side`` (sn17-fixer does), or None."""
    for point in entry_points(group="sn17.side_by_side"):
        draw: Draw = point.load()
        return draw
    return None


def picture_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGBA"))


def main(argv: Sequence[str], draw: Draw | None = None) -> int:
    """Print both sets of figures as JSON, with drift and likeness; write assets and a picture where asked."""
    parser = argparse.ArgumentParser(prog="sn17-trellis compare", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt")
    what.add_argument("--image", type=Path)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--preset", default=None)
    parser.add_argument("--structure-steps", type=int)
    parser.add_argument("--latent-steps", type=int)
    parser.add_argument("--root", type=Path, action="append", default=[], help="folder with OWNER/NAME/...")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--against", choices=("reference", "cpu", "exact"), default="reference",
                        help="Microsoft's package, the plain form, or the exact lane")  # fmt: skip
    parser.add_argument("--lane", choices=("exact", "fast"), help="of ours")
    parser.add_argument("--into", type=Path, help="folder for ours.ply, other.ply and side-by-side.png")
    args = parser.parse_args(argv)
    sampling = Sampling(
        args.preset, structure_steps=args.structure_steps, latent_steps=args.latent_steps, lane=args.lane
    )
    picture = None if args.image is None else picture_of(args.image)
    job = Job(GenerationKind.TASK, args.seed, args.prompt, picture, sampling)
    text, image = (args.checkpoint, None) if args.image is None else (None, args.checkpoint)
    config = TorchConfig(text, image, photographs="refused", model_roots=tuple(args.root), device=args.device)
    other: Backend = TorchBackend(replace(config, device="cpu") if args.against == "cpu" else config)
    if args.against == "reference":
        other = ReferenceBackend(text, image)
    figures: dict[str, Any] = {}
    made: list[tuple[bytes, Quality]] = []
    exact = replace(job, sampling=replace(sampling, lane="exact"))
    for name, backend, task in (("ours", TorchBackend(config), job), ("other", other, exact)):
        try:
            figures[name], ply, quality = run(backend, task)
        except (GenerationError, ModelMissing, CheckpointError, RuntimeError) as error:
            sys.stderr.write(f"{name} ({backend.name}): {error}\n")
            return 1
        made.append((ply, quality))
        backend.close()
    (ours, our_quality), (others, other_quality) = made
    figures["drift"] = drift(our_quality, other_quality)
    draw = draw or installed_renderer()
    if draw is None:
        sys.stderr.write(
            "no pictures without the fixer that draws them: uv sync --inexact --package sn17-fixer\n"
        )
    else:
        figures["likeness"], png = draw(read_ply(ours), read_ply(others))
    if args.into:
        args.into.mkdir(parents=True, exist_ok=True)
        (args.into / "ours.ply").write_bytes(ours)
        (args.into / "other.ply").write_bytes(others)
        if draw is not None:
            (args.into / "side-by-side.png").write_bytes(png)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    return 0
