"""Time the TRELLIS engine on a GPU: text-xlarge shapes, random weights, our eager path as the baseline.

    python -m sn17_bench.trellis_gpu [--json FILE] [--voxels 12000 20230] [--repeat 5] [--generations 60]
                                     [--lane FILE] [--quick]

Makes checkpoints of the released text-xlarge and image-large shapes in a temporary directory (8 GB; the
values are random: assets mean nothing; times, memory and agreement count). Loads the first in a process of
its own to measure time and host peak, then times every stage, then drives the worker's backend with both in
another process. Voxels are a synthetic shell, since random weights have no shape of their own. All times are
host times between synchronisations of the device; medians of `--repeat` runs after warm-up, first-call cost
apart. The JSON is written anew after every part: a run that is cut short leaves what it had.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
sys.path[:0] = [
    str(ROOT / path)
    for path in ("dev/bench/src", "libs/contract/src", "services/trellis/src", "libs/splats/src")
]

import torch  # noqa: E402
from sn17_splats import Splats, write_ply  # noqa: E402
from sn17_trellis.engine import fused  # noqa: E402
from sn17_trellis.engine.calibration import Calibration  # noqa: E402
from sn17_trellis.engine.config import EXACT, PRESETS, SamplerParams, Savings  # noqa: E402
from sn17_trellis.engine.fast import FastRunner  # noqa: E402
from sn17_trellis.engine.pipeline import Pipeline, Request, load_pipeline  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner, Runner  # noqa: E402
from sn17_trellis.engine.sampler import forward_count, sample  # noqa: E402
from sn17_trellis.engine.voxels import Voxels, shell  # noqa: E402

from sn17_bench.kernel_sums import kernel_seconds  # noqa: E402
from sn17_bench.stamp import stamp  # noqa: E402
from sn17_bench.trellis_checkpoint import make_checkpoints  # noqa: E402
from sn17_bench.trellis_process import GIB, timed  # noqa: E402

REFERENCE = {
    "date": "2026-11, one H100 80GB, torch 2.11, spconv 2.3.8, FlashAttention 2, 60/50 steps",
    12000: {"condition": 0.005, "structure": 4.58, "structure_decode": 0.007, "latents": 7.5,
            "gaussians": 0.013, "ply": 1.5, "total": 12.9},
    20230: {"condition": 0.005, "structure": 4.58, "structure_decode": 0.007, "latents": 7.7,
            "gaussians": 0.015, "ply": 2.8, "total": 15.0},
    "load_seconds": 35.9,
    "load_host_peak_gib": 7.91,
}  # fmt: skip
"""Microsoft's implementation, measured once; quoted beside the figures of this run."""

STEPS = {"60/50": PRESETS["phase1"], "25/25": PRESETS["fast"]}
PROMPT = "a small red cube"
PARTS = ("load", "attention", "sizes", "agreement", "runs", "backend")


def structure_flops(pipeline: Pipeline, params: SamplerParams, savings: Savings = EXACT) -> float:
    config = pipeline.flow.config
    return forward_count(params, savings) * transformer_flops(config, config.resolution**3)


def transformer_flops(config: Any, tokens: int, cond_tokens: int = 77) -> float:
    c, blocks = config.model_channels, config.num_blocks
    return float(blocks * tokens * c * (28 * c + 4 * tokens + 4 * cond_tokens))


def latent_flops(
    pipeline: Pipeline, voxels: Voxels, params: SamplerParams, savings: Savings = EXACT
) -> float:
    """Products of existing neighbours only; both branches counted, shared work too."""
    flow = pipeline.latent_flow
    grids = flow.levels(voxels)
    pairs = [int((grid.neighbours < len(grid)).sum()) for grid in grids]
    total, level = transformer_flops(flow.config, len(grids[-1])), 0
    for block in (*flow.input_blocks, *flow.out_blocks):
        level += {"down": 1, "up": -1}.get(block.resample, 0)
        for conv in (block.conv1, block.conv2):
            out, inner = conv.conv.weight.shape[0], conv.conv.weight.shape[-1]
            total += 2.0 * pairs[level] * out * inner
    return forward_count(params, savings) * total


def samplers(pipeline: Pipeline, steps: str) -> tuple[SamplerParams, SamplerParams]:
    preset, (structure, latents) = STEPS[steps], pipeline.defaults
    return (
        structure.override(steps=preset.structure_steps, cfg_strength=preset.structure_cfg),
        latents.override(steps=preset.latent_steps, cfg_strength=preset.latent_cfg),
    )


Lanes = tuple[tuple[SamplerParams, Savings], tuple[SamplerParams, Savings]]
"""How both stages are sampled."""


def exact(pipeline: Pipeline, steps: str) -> Lanes:
    structure, latents = samplers(pipeline, steps)
    return (structure, EXACT), (latents, EXACT)


def one_job(pipeline: Pipeline, voxels: Voxels, lanes: Lanes, seed: int) -> dict[str, float]:
    """Prompt to PLY bytes, seconds by stage; the decoded structure gives way to `voxels`."""
    (structure, structure_savings), (latents, latent_savings) = lanes
    request = Request(seed, structure, latents, prompt=PROMPT)
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, float] = {}
    started = time.perf_counter()
    out["condition"], (cond, uncond) = timed(lambda: pipeline.condition(request))
    noise = pipeline.structure_noise(generator)
    out["structure"], latent = timed(
        lambda: pipeline.sample_structure(noise, cond, uncond, structure, savings=structure_savings)
    )

    def decode() -> torch.Tensor:
        return torch.argwhere(pipeline.decoder(latent) > 0)

    out["structure_decode"], _ = timed(decode)
    grid = Voxels(voxels.coords, voxels.resolution)
    noise = pipeline.latent_noise(generator, grid)
    out["latents"], slat = timed(
        lambda: pipeline.sample_latents(noise, cond, uncond, grid, latents, savings=latent_savings)
    )
    out["gaussians"], packed = timed(lambda: pipeline.decode_gaussians(slat, grid))
    out["transfer"], t = timed(lambda: pipeline.to_host(packed))
    out["ply"], _ = timed(
        lambda: write_ply(Splats(t[:, :3], t[:, 10:13], t[:, 13:17], t[:, 9], t[:, 6:9]), normals=True)
    )
    out["total"] = time.perf_counter() - started
    return out


def agreement(pipeline: Pipeline, voxels: Voxels) -> dict[str, float]:
    """Relative L2 of fast against eager per stage, both given the same input, 25 steps."""
    structure, latents = samplers(pipeline, "25/25")
    cond, uncond = pipeline.conditioner.example()
    generator = torch.Generator().manual_seed(1)
    structure_noise = pipeline.structure_noise(generator)
    latent_noise = pipeline.latent_noise(generator, voxels)

    def both(make: Callable[[Runner], Any], noise: torch.Tensor, params: SamplerParams) -> float:
        fast = sample(make(pipeline.runner), noise, params)
        eager = sample(make(EagerRunner()), noise, params)
        return float((fast - eager).norm() / eager.norm())

    return {
        "structure": both(
            lambda r: r.structure(pipeline.flow, structure, cond, uncond), structure_noise, structure
        ),
        "latents": both(
            lambda r: r.latents(pipeline.latent_flow, latents, cond, uncond, voxels), latent_noise, latents
        ),
    }


def gpu_ceiling() -> float:
    """TFLOP/s of a large half-precision product on this card."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = timed(lambda: [a @ b for _ in range(20)])
    return 20 * 2 * 8192**3 / seconds / 1e12


def child(*arguments: object) -> dict[str, Any]:
    """Run a part in a process of its own."""
    command = [sys.executable, "-m", "sn17_bench.trellis_process", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    result: dict[str, Any] = json.loads((done.stdout.splitlines() or ["{}"])[-1])
    return {**result, "failed": done.stderr[-3000:]} if done.returncode else result


def pacing(pipeline: Pipeline) -> dict[str, float]:
    """What reporting finished steps costs: the structure stage with and without, in turn, medians."""
    structure, _ = samplers(pipeline, "25/25")
    cond, uncond = pipeline.conditioner.example()
    noise = pipeline.structure_noise(torch.Generator().manual_seed(1))
    velocity = pipeline.runner.structure(pipeline.flow, structure, cond, uncond)
    with_it, without = [], []
    for _ in range(5):
        with_it.append(timed(lambda: sample(velocity, noise, structure, lambda *_: None))[0])
        without.append(timed(lambda: sample(velocity, noise, structure))[0])
    return {"with": statistics.median(with_it), "without": statistics.median(without)}


def bench_size(
    pipeline: Pipeline, voxels: Voxels, lanes: Lanes, repeat: int, *, baseline: bool
) -> dict[str, Any]:
    """Medians by stage for one number of voxels and one way to sample."""
    fast = pipeline.runner
    first = one_job(pipeline, voxels, lanes, seed=0)
    runs = [one_job(pipeline, voxels, lanes, seed) for seed in range(1, repeat + 1)]
    result: dict[str, Any] = {"first_total": first["total"], "fast": _median(runs)}
    if baseline:
        pipeline.runner = EagerRunner()
        result["eager"] = _median([one_job(pipeline, voxels, lanes, seed) for seed in range(2)][1:])
        pipeline.runner = fast
    structure, latents = lanes
    result["forwards"] = [forward_count(*structure), forward_count(*latents)]
    result["tflop"] = {
        "structure": structure_flops(pipeline, *structure) / 1e12,
        "latents": latent_flops(pipeline, voxels, *latents) / 1e12,
    }
    return result


def kernels(pipeline: Pipeline, voxels: Voxels) -> dict[str, dict[str, float]]:
    """Kernel times of both flows at 60/50, by kind; the profiler slows the host, not the kernels."""
    (structure, _), (latents, _) = exact(pipeline, "60/50")
    cond, uncond = pipeline.conditioner.example()
    generator = torch.Generator().manual_seed(1)
    first, second = pipeline.structure_noise(generator), pipeline.latent_noise(generator, voxels)
    return {
        "structure": kernel_seconds(lambda: pipeline.sample_structure(first, cond, uncond, structure)),
        "latents": kernel_seconds(lambda: pipeline.sample_latents(second, cond, uncond, voxels, latents)),
    }


def lanes_of(pipeline: Pipeline, file: Path) -> dict[str, Lanes]:
    """The calibrated lane of another checkpoint, forced onto these weights: its speed, not its quality."""
    found = Calibration.model_validate_json(file.read_bytes())
    structure, latents = samplers(pipeline, "60/50")
    s, n = found.structure.chosen, found.latents.chosen
    schedule = (structure.override(steps=s.params.steps), s.savings)
    few = (latents.override(steps=n.params.steps), n.savings)
    return {
        "forced lane": (schedule, few),
        "forced lane, structure only": (schedule, (latents, EXACT)),
        "forced lane, latents only": ((structure, EXACT), few),
    }


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def report_run(name: str, run: dict[str, Any], ceiling: float) -> None:
    quoted = REFERENCE.get(int(name.split()[0]), {}) if "60/50" in name else {}
    limit = sum(run["tflop"].values()) / ceiling
    print(f"\n{name}: first job {run['first_total']:.2f} s, {run['forwards']} forwards")
    print(f"  limit of the arithmetic {limit:.2f} s, {limit / run['fast']['total']:.0%} of it reached")
    for stage, sums in run.get("kernel_seconds", {}).items():
        print(f"  kernels of {stage}: " + ", ".join(f"{kind} {value:.3f}" for kind, value in sums.items()))
    print(f"  {'stage':18}{'fast s':>9}{'eager s':>9}{'reference s':>13}{'TFLOP/s':>9}{'of limit':>9}")
    for stage, seconds in run["fast"].items():
        rate = run["tflop"][stage] / seconds if stage in run["tflop"] else None
        cells = [
            f"{seconds:9.3f}",
            f"{run['eager'][stage]:9.3f}" if "eager" in run else " " * 9,
            f"{quoted[stage]:13.3f}" if stage in quoted else " " * 13,
            f"{rate:9.0f}{rate / ceiling:9.0%}" if rate else "",
        ]
        print(f"  {stage:18}{''.join(cells)}", flush=True)


def report_backend(found: dict[str, Any]) -> None:
    if "failed" in found:
        print("the backend's part failed:", found["failed"])
        return
    readings = found["generations"]
    print(
        f"\nboth models in the worker's backend, {found['memory_limit']}: "
        f"load {found['load_seconds']:.1f} s, "
        f"warm-up {found['warmup_seconds']:.1f} s, host peak {found['host_peak_gib']} GiB"
    )
    for what in ("after_load", "after_warmup", "at_end"):
        print(f"  {what:14} {found[what]}")
    print(f"  device memory held at most, against after the warm-up: {found['gpu_growth']:.3f}")
    print(
        f"  steps reported {found['step_reports']}; "
        f"cancelled {found['cancel_seconds']:.3f} s after the caller left"
    )
    print(f"  {len(readings)} generations ({found['refused']} refused), unreclaimable GiB:",
          [reading["unreclaimable"] for reading in readings], flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--voxels", type=int, nargs="+", default=[12000, 20230])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--lane", type=Path, help="calibration whose fast lane is forced onto these weights")
    parser.add_argument("--generations", type=int, default=60, help="in the worker's backend, both models")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)")
    parser.add_argument("--quick", action="store_true", help="one repeat")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    # As FastRunner does, too late here: making checkpoints multiplies matrices.
    fused.without_workspace()
    fused.growing_segments()
    result: dict[str, Any] = {
        **stamp(), "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "python": platform.python_version(),
        "reference": {str(key): value for key, value in REFERENCE.items()}, "runs": {},
    }  # fmt: skip

    def keep(name: str, value: Any) -> Any:
        result[name] = value
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
        print(f"{time.perf_counter() - started:6.1f} s  {name}: {str(value)[:600]}", flush=True)
        return value

    started, parts = time.perf_counter(), set(args.parts)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        text, image = make_checkpoints(Path(folder))
        torch.cuda.empty_cache()
        keep("ceiling", gpu_ceiling())
        for part in ("load", "attention"):
            if part in parts:
                keep(part, child(part, text))
        if "sizes" in parts:
            keep("sizes", {growing: child("sizes", growing) for growing in ("no", "yes")})
        if parts & {"agreement", "runs"}:
            bench_pipeline(args, text, result, keep)
            torch.cuda.empty_cache()
        if "backend" in parts:
            keep("backend", child("backend", text, image, args.generations, Path(folder) / "verified.json"))
            report_backend(result["backend"])
        if "agreement" in parts:
            pictures = load_pipeline(image, torch.device("cuda"), runner=FastRunner())
            keep("agreement_image", agreement(pictures, shell(args.voxels[0], 64, pictures.device)))


def bench_pipeline(
    args: argparse.Namespace, text: Path, result: dict[str, Any], keep: Callable[[str, Any], Any]
) -> None:
    """What runs in this very process: agreement with the plain form, and all timed jobs."""
    pipeline = load_pipeline(text, torch.device("cuda"), runner=FastRunner())
    grids = [shell(count, 64, pipeline.device) for count in args.voxels]
    keep("voxels", {str(len(grid)): len(grid.coarse.voxels) for grid in grids})
    keep("warmup_seconds", timed(lambda: pipeline.warm_up(grids[0]))[0])
    few = exact(pipeline, "25/25")
    known = one_job(pipeline, grids[0], few, 0)["latents"]
    fresh = one_job(pipeline, shell(args.voxels[0] + 333, 64, pipeline.device), few, 0)["latents"]
    keep("new_count_seconds", fresh - known)
    if "agreement" in args.parts:
        keep("agreement", agreement(pipeline, grids[0]))
        keep("pacing", pacing(pipeline))
    chosen = {steps: exact(pipeline, steps) for steps in STEPS}
    chosen |= lanes_of(pipeline, args.lane) if args.lane else {}
    for grid in grids if "runs" in args.parts else ():
        for way, lanes in chosen.items():
            name = f"{len(grid)} voxels, {way}"
            baseline = way == "60/50" and grid is grids[0] and "agreement" in args.parts
            run = bench_size(pipeline, grid, lanes, 1 if args.quick else args.repeat, baseline=baseline)
            if way == "60/50":
                run["kernel_seconds"] = kernels(pipeline, grid)
            keep("runs", {**result["runs"], name: run})
            report_run(name, run, result["ceiling"])
    keep("gpu_peak_gib", round(torch.cuda.max_memory_allocated() / GIB, 2))


if __name__ == "__main__":
    main()
