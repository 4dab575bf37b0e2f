"""The local validators' scorer: what a submission costs by size, and how often it is right.

The baseline of the cost is decoding alone, in the same run. ``--json FILE`` writes the figures.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sn17_contract.metrics import GenerationKind
from sn17_devnet import preprocess
from sn17_devnet.picture import render_front
from sn17_devnet.scorer import score_image, score_text
from sn17_devnet.tasks import TaskSource
from sn17_splats import Splats, encode_spz
from sn17_trellis.backend import Job
from sn17_trellis.procedural import ProceduralBackend

GATE = 0.6
COST_PROMPT = "a large purple dome on a yellow block"
Change = Callable[[Splats, np.random.Generator], Splats]


def mirrored(splats: Splats, rng: np.random.Generator) -> Splats:
    return splats.replace(positions=splats.positions * np.array([-1, 1, 1], dtype=np.float32))


def recoloured(splats: Splats, rng: np.random.Generator) -> Splats:
    return splats.replace(f_dc=-splats.f_dc)


def noise(splats: Splats, rng: np.random.Generator) -> Splats:
    positions = rng.uniform(-0.5, 0.5, (len(splats), 3)).astype(np.float32)
    return splats.replace(
        positions=positions, f_dc=rng.uniform(-1.7, 1.7, positions.shape).astype(np.float32)
    )


def scattered(splats: Splats, rng: np.random.Generator) -> Splats:
    return splats.replace(positions=rng.uniform(-0.5, 0.5, (len(splats), 3)).astype(np.float32))


def transparent(splats: Splats, rng: np.random.Generator) -> Splats:
    return splats.replace(opacity_logits=np.full(len(splats), -4.0, dtype=np.float32))


CONTROLS: dict[str, Change] = {
    "true": lambda splats, rng: splats,
    "mirrored": mirrored,
    "recoloured": recoloured,
    "noise": noise,
    "right colours, wrong places": scattered,
    "transparent": transparent,
}


def encode(splats: Splats) -> str:
    return base64.b64encode(encode_spz(splats)).decode()


def generate(prompt: str, limit: int, seed: int) -> Splats:
    job = Job(GenerationKind.TASK, seed, prompt=prompt)
    asset = ProceduralBackend(limit).generate(job, lambda *_: None, lambda: False).asset
    assert isinstance(asset, Splats)
    return asset


def milliseconds(work: Callable[[], object], runs: int) -> float:
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def cost(runs: int) -> list[dict[str, float]]:
    rows = []
    picture = render_front(COST_PROMPT)
    whole = generate(COST_PROMPT, 700_000, 0)
    for size in (20_000, 100_000, 400_000):
        splats = whole.select(np.resize(np.random.default_rng(0).permutation(len(whole)), size))
        data = encode(splats)
        score_text(data, COST_PROMPT)
        score_image(data, picture)
        rows.append(
            {
                "gaussians": size,
                "decode_ms": milliseconds(lambda: preprocess.decode(data), runs),  # noqa: B023
                "text_ms": milliseconds(lambda: score_text(data, COST_PROMPT), runs),  # noqa: B023
                "image_ms": milliseconds(lambda: score_image(data, picture), runs),  # noqa: B023
            }
        )
    return rows


def controls(samples: int, limit: int) -> list[dict[str, object]]:
    source = TaskSource((17, 4), 0.0)
    scenes = [source().scene for _ in range(samples)]
    made = [generate(scene, limit, seed) for seed, scene in enumerate(scenes)]
    rng = np.random.default_rng(1)
    spoilt = {name: [change(splats, rng) for splats in made] for name, change in CONTROLS.items()}
    spoilt["of another prompt"] = made[1:] + made[:1]
    rows: list[dict[str, object]] = []
    for name, splats in spoilt.items():
        data = [encode(each) for each in splats]
        text = [score_text(each, scene).value for each, scene in zip(data, scenes, strict=True)]
        image = [
            score_image(each, render_front(scene)).value for each, scene in zip(data, scenes, strict=True)
        ]
        rows.append(
            {
                "splat": name,
                "samples": samples,
                "text_accepted": float(np.mean(np.array(text) >= GATE)),
                "text_median": float(np.median(text)),
                "image_accepted": float(np.mean(np.array(image) >= GATE)),
                "image_median": float(np.median(image)),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--max-gaussians", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    costs = cost(options.runs)
    print(f"{'gaussians':>10} {'decode ms':>10} {'text ms':>10} {'image ms':>10}")
    for row in costs:
        print(f"{row['gaussians']:>10,.0f} " + " ".join(f"{row[k]:>10.1f}" for k in list(row)[1:]))
    shares = controls(options.samples, options.max_gaussians)
    print(f"\n{'splat':<28} {'text accepted':>14} {'median':>8} {'image accepted':>15} {'median':>8}")
    for share in shares:
        print(
            f"{share['splat']:<28} {share['text_accepted']:>14.1%} {share['text_median']:>8.2f} "
            f"{share['image_accepted']:>15.1%} {share['image_median']:>8.2f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"cost": costs, "controls": shares}, indent=2) + "\n")


if __name__ == "__main__":
    main()
