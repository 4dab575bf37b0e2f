"""Time the TRELLIS engine on a GPU: text-xlarge shapes, random weights, our eager path as the baseline.

    python bench/trellis_gpu.py [--json FILE] [--voxels 12000 20230] [--repeat 5] [--generations 30] [--quick]

Makes a checkpoint of the released text-xlarge shapes in a temporary directory (4.9 GB; the values are
random: assets mean nothing; times, memory and agreement count), loads it in a process of its own to measure
time and host peak, then times every stage. Voxels are a synthetic shell, since random weights have no shape
of their own. All times are host times between synchronisations of the device; medians of `--repeat` runs
after warm-up, first-call cost apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "services/trellis/src"), str(ROOT / "libs/splats/src")]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from sn17_splats import Splats, write_ply  # noqa: E402
from sn17_trellis.engine.checkpoint import ModelPath, build  # noqa: E402
from sn17_trellis.engine.config import PRESETS, SamplerParams  # noqa: E402
from sn17_trellis.engine.fast import FastRunner  # noqa: E402
from sn17_trellis.engine.pipeline import Pipeline, Request, load_pipeline  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner, Runner  # noqa: E402
from sn17_trellis.engine.sampler import forward_count, sample  # noqa: E402
from sn17_trellis.engine.voxels import Voxels  # noqa: E402

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
GIB = 1024**3


def make_checkpoint(directory: Path) -> None:
    """Released text-xlarge shapes with random values, by the official layout."""
    flow = {"in_channels": 8, "out_channels": 8, "model_channels": 1280, "cond_channels": 768,
            "num_blocks": 28, "num_heads": 16, "mlp_ratio": 4, "pe_mode": "ape", "qk_rms_norm": True,
            "use_fp16": True}  # fmt: skip
    representation = {
        "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
        "perturb_offset": True, "voxel_size": 1.5, "num_gaussians": 32, "2d_filter_kernel_size": 0.1,
        "3d_filter_kernel_size": 9e-4, "scaling_bias": 4e-3, "opacity_bias": 0.1,
        "scaling_activation": "softplus"}  # fmt: skip
    networks = {
        "sparse_structure_flow_model": ("SparseStructureFlowModel", {
            **flow, "resolution": 16, "patch_size": 1, "qk_rms_norm_cross": True}),
        "sparse_structure_decoder": ("SparseStructureDecoder", {
            "out_channels": 1, "latent_channels": 8, "num_res_blocks": 2, "num_res_blocks_middle": 2,
            "channels": [512, 128, 32], "use_fp16": True}),
        "slat_flow_model": ("ElasticSLatFlowModel", {
            **flow, "resolution": 64, "patch_size": 2, "num_io_res_blocks": 3, "io_block_channels": [256]}),
        "slat_decoder_gs": ("ElasticSLatGaussianDecoder", {
            "resolution": 64, "model_channels": 768, "latent_channels": 8, "num_blocks": 12, "num_heads": 12,
            "mlp_ratio": 4, "attn_mode": "swin", "window_size": 8, "use_fp16": True,
            "representation_config": representation}),
    }  # fmt: skip
    (directory / "ckpts").mkdir(parents=True)
    for role, (name, args) in networks.items():
        base = directory / "ckpts" / role
        base.with_suffix(".json").write_text(json.dumps({"name": name, "args": args}))
        module = build(ModelPath(role, base.with_suffix(".json"), base.with_suffix(".safetensors")))
        save_file(random_state(module), base.with_suffix(".safetensors"))
    sampler = {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": 1e-5},
               "params": {"steps": 25, "cfg_strength": 7.5, "cfg_interval": [0.5, 1.0],
                          "rescale_t": 3.0}}  # fmt: skip
    (directory / "pipeline.json").write_text(json.dumps({"name": "TrellisTextTo3DPipeline", "args": {
        "models": {role: f"ckpts/{role}" for role in networks},
        "sparse_structure_sampler": sampler, "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
        "text_cond_model": "clip",
    }}))  # fmt: skip
    make_clip(directory / "clip")


def random_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Values that keep activations in range, in the dtype split of released files."""
    state = {}
    generator = torch.Generator("cuda").manual_seed(7)
    for key, value in module.state_dict().items():
        fan_in = value[0].numel() if value.dim() > 1 else 1
        if key.endswith("gamma") or (key.endswith("weight") and value.dim() == 1):
            tensor = torch.ones(value.shape)
        elif value.dim() == 1:
            tensor = 0.02 * torch.randn(value.shape, device="cuda", generator=generator)
        else:
            tensor = torch.randn(value.shape, device="cuda", generator=generator) * fan_in**-0.5
        full = ("t_embedder", "input_layer", "out_layer", "pos_emb", "norm", "offset_perturbation")
        state[key] = tensor.to("cpu", torch.float32 if any(part in key for part in full) else torch.float16)
    return state


def make_clip(directory: Path) -> None:
    """A text model of CLIP ViT-L/14's shape with random weights, and a byte-level tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    directory.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (directory / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(directory / "vocab.json"), str(directory / "merges.txt"))
    tokenizer.save_pretrained(directory)
    config = CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12,
                            num_attention_heads=12, max_position_embeddings=77, bos_token_id=0,
                            eos_token_id=1, pad_token_id=1)  # fmt: skip
    CLIPTextModel(config).save_pretrained(directory)


def shell(count: int, device: torch.device) -> Voxels:
    """The `count` voxels of a 64^3 grid nearest to a bumpy sphere's surface."""
    axis = torch.arange(64, dtype=torch.float32) - 31.5
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    target = (count / 27) ** 0.5 * 1.15 + 2 * torch.sin(x / 4) * torch.cos(y / 5)
    nearest = (radius - target).abs().flatten().argsort(stable=True)[:count].sort().values
    coords = torch.stack([nearest * 0, nearest // 4096, nearest // 64 % 64, nearest % 64], dim=1)
    return Voxels(coords.int().to(device), 64)


def structure_flops(pipeline: Pipeline, params: SamplerParams) -> float:
    config = pipeline.flow.config
    return forward_count(params) * transformer_flops(config, config.resolution**3)


def transformer_flops(config: Any, tokens: int, cond_tokens: int = 77) -> float:
    c, blocks = config.model_channels, config.num_blocks
    return float(blocks * tokens * c * (28 * c + 4 * tokens + 4 * cond_tokens))


def latent_flops(pipeline: Pipeline, voxels: Voxels, params: SamplerParams) -> float:
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
    return forward_count(params) * total


def samplers(pipeline: Pipeline, steps: str) -> tuple[SamplerParams, SamplerParams]:
    preset, (structure, latents) = STEPS[steps], pipeline.defaults
    return (
        structure.override(steps=preset.structure_steps, cfg_strength=preset.structure_cfg),
        latents.override(steps=preset.latent_steps, cfg_strength=preset.latent_cfg),
    )


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    out = function()
    torch.cuda.synchronize()
    return time.perf_counter() - start, out


def one_job(pipeline: Pipeline, voxels: Voxels, steps: str, seed: int) -> dict[str, float]:
    """Prompt to PLY bytes, seconds by stage; the decoded structure gives way to `voxels`."""
    structure, latents = samplers(pipeline, steps)
    request = Request(seed, structure, latents, prompt=PROMPT)
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, float] = {}
    started = time.perf_counter()
    out["condition"], (cond, neg) = timed(lambda: pipeline.condition(request))
    noise = pipeline.structure_noise(generator)
    out["structure"], latent = timed(lambda: pipeline.sample_structure(noise, cond, neg, structure))

    def decode() -> torch.Tensor:
        return torch.argwhere(pipeline.decoder(latent) > 0)

    out["structure_decode"], _ = timed(decode)
    grid = Voxels(voxels.coords, voxels.resolution)
    noise = pipeline.latent_noise(generator, grid)
    out["latents"], slat = timed(lambda: pipeline.sample_latents(noise, cond, neg, grid, latents))
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
    request = Request(1, structure, latents, prompt=PROMPT)
    cond, neg = pipeline.condition(request)
    generator = torch.Generator().manual_seed(1)
    structure_noise = pipeline.structure_noise(generator)
    latent_noise = pipeline.latent_noise(generator, voxels)

    def both(make: Callable[[Runner], Any], noise: torch.Tensor, params: SamplerParams) -> float:
        fast = sample(make(pipeline.runner), noise, params)
        eager = sample(make(EagerRunner()), noise, params)
        return float((fast - eager).norm() / eager.norm())

    return {
        "structure": both(
            lambda r: r.structure(pipeline.flow, structure, cond, neg), structure_noise, structure
        ),
        "latents": both(
            lambda r: r.latents(pipeline.latent_flow, latents, cond, neg, voxels), latent_noise, latents
        ),
    }


def status(*names: str) -> dict[str, float]:
    """Entries of /proc/self/status in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024**2 for line in lines if line.endswith("kB")}
    return {name: round(found.get(name, 0.0), 3) for name in names}


def gpu_ceiling() -> float:
    """TFLOP/s of a large half-precision product on this card."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    for _ in range(3):
        a @ b
    seconds, _ = timed(lambda: [a @ b for _ in range(20)])
    return 20 * 2 * 8192**3 / seconds / 1e12


def load_only(directory: Path) -> dict[str, Any]:
    """Run in a process of its own: time and host memory of loading, imports and CUDA start apart."""
    before = status("RssAnon", "VmHWM")
    from transformers import AutoTokenizer, CLIPTextModel  # noqa: F401

    cuda, _ = timed(lambda: torch.zeros(1, device="cuda"))
    with_cuda = status("RssAnon", "VmHWM")
    seconds, pipeline = timed(lambda: load_pipeline(directory, torch.device("cuda")))
    after = status("RssAnon", "RssFile", "VmHWM")
    weights = torch.cuda.memory_allocated() / GIB
    del pipeline
    return {"seconds": seconds, "cuda_start_seconds": cuda, "imports": before, "cuda": with_cuda,
            "after": after, "host_peak_gib": after["VmHWM"],
            "gpu_weights_gib": round(weights, 2)}  # fmt: skip


def limit_memory(gib: int) -> str:
    """Move this process under a cgroup limit where that is possible; says what was done."""
    for base, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        try:
            group = Path(base) / "sn17-bench"
            group.mkdir(exist_ok=True)
            if limit == "memory.max":
                (Path(base) / "cgroup.subtree_control").write_text("+memory")
            (group / limit).write_text(str(gib * GIB))
            (group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            reason = str(error)
            continue
        return f"under a {gib} GiB cgroup limit ({group})"
    return f"no memory limit could be set here ({reason}); figures by component instead"


def endurance(pipeline: Pipeline, voxels: list[Voxels], count: int) -> list[dict[str, float]]:
    """Host and device memory over generations of alternating sizes at few steps."""
    readings = []
    for index in range(count):
        grid = voxels[index % len(voxels)]
        cond, neg = pipeline.condition(Request(index, *pipeline.defaults, prompt=PROMPT))
        params = SamplerParams(steps=4)
        generator = torch.Generator().manual_seed(index)
        latent = pipeline.sample_structure(pipeline.structure_noise(generator), cond, neg, params)
        pipeline.decoder(latent)
        slat = pipeline.sample_latents(pipeline.latent_noise(generator, grid), cond, neg, grid, params)
        table = pipeline.to_host(pipeline.decode_gaussians(slat, grid))
        write_ply(Splats(table[:, :3], table[:, 10:13], table[:, 13:17], table[:, 9], table[:, 6:9]))
        torch.cuda.synchronize()
        readings.append({**status("RssAnon", "RssFile", "RssShmem"),
                         "gpu_allocated": round(torch.cuda.memory_allocated() / GIB, 3),
                         "gpu_reserved": round(torch.cuda.memory_reserved() / GIB, 3)})  # fmt: skip
    return readings


def bench_size(
    pipeline: Pipeline, voxels: Voxels, steps: str, repeat: int, *, baseline: bool
) -> dict[str, Any]:
    """Medians by stage for one number of voxels and one pair of step counts."""
    fast = pipeline.runner
    first = one_job(pipeline, voxels, steps, seed=0)
    runs = [one_job(pipeline, voxels, steps, seed) for seed in range(1, repeat + 1)]
    result: dict[str, Any] = {"first_total": first["total"], "fast": _median(runs)}
    if baseline:
        pipeline.runner = EagerRunner()
        result["eager"] = _median([one_job(pipeline, voxels, steps, seed) for seed in range(2)][1:])
        pipeline.runner = fast
    structure, latents = samplers(pipeline, steps)
    result["tflop"] = {
        "structure": structure_flops(pipeline, structure) / 1e12,
        "latents": latent_flops(pipeline, voxels, latents) / 1e12,
    }
    return result


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def report(result: dict[str, Any]) -> None:
    print(
        f"\n{result['device']}, torch {result['torch']}; 8192^3 fp16 product: {result['ceiling']:.0f} TFLOP/s"
    )
    load = result["load"]
    print(
        f"load {load['seconds']:.1f} s, host peak {load['host_peak_gib']:.2f} GiB, "
        f"GPU weights {load['gpu_weights_gib']:.2f} GiB "
        f"(reference {REFERENCE['load_seconds']} s, {REFERENCE['load_host_peak_gib']} GiB)"
    )
    print(f"warm-up {result['warmup_seconds']:.1f} s; a voxel count never seen before: "
          f"+{result['new_count_seconds']:.2f} s")  # fmt: skip
    print("fast against eager, relative L2:", {k: f"{v:.1e}" for k, v in result["agreement"].items()})
    for name, run in result["runs"].items():
        voxels = int(name.split()[0])
        quoted = REFERENCE.get(voxels, {}) if "60/50" in name else {}
        print(f"\n{name}: first job {run['first_total']:.2f} s")
        print(f"  {'stage':18}{'fast s':>9}{'eager s':>9}{'reference s':>13}{'TFLOP/s':>9}{'of limit':>9}")
        for stage, seconds in run["fast"].items():
            rate = run["tflop"][stage] / seconds if stage in run["tflop"] else None
            cells = [
                f"{seconds:9.3f}",
                f"{run['eager'][stage]:9.3f}" if "eager" in run else " " * 9,
                f"{quoted[stage]:13.3f}" if stage in quoted else " " * 13,
                f"{rate:9.0f}{rate / result['ceiling']:9.0%}" if rate else "",
            ]
            print(f"  {stage:18}{''.join(cells)}")
    if readings := result.get("endurance"):
        print(f"\n{len(readings)} generations {result['memory_limit']}:")
        for index in sorted({0, 1, len(readings) // 2, len(readings) - 1}):
            print(f"  after {index + 1:3}: {readings[index]} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--voxels", type=int, nargs="+", default=[12000, 20230])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--generations", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="one repeat, no endurance run")
    parser.add_argument("--load-only", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load_only:
        print(json.dumps(load_only(args.load_only)))
        return
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU")
    repeat = 1 if args.quick else args.repeat
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "python": platform.python_version(),
        "reference": {str(key): value for key, value in REFERENCE.items()}, "runs": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        directory = Path(folder) / "checkpoint"
        make_checkpoint(directory)
        command = [sys.executable, __file__, "--load-only", str(directory)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        result["load"] = json.loads(child.stdout.splitlines()[-1])
        result["memory_limit"] = limit_memory(12)
        result["ceiling"] = gpu_ceiling()
        pipeline = load_pipeline(directory, torch.device("cuda"), runner=FastRunner())
        grids = [shell(count, pipeline.device) for count in args.voxels]
        result["voxels"] = {str(len(grid)): len(grid.coarse.voxels) for grid in grids}
        result["warmup_seconds"], _ = timed(lambda: one_job(pipeline, grids[0], "25/25", 0))
        known = one_job(pipeline, grids[0], "25/25", 0)["latents"]
        fresh = one_job(pipeline, shell(args.voxels[0] + 333, pipeline.device), "25/25", 0)["latents"]
        result["new_count_seconds"] = fresh - known
        result["agreement"] = agreement(pipeline, grids[0])
        for grid in grids:
            for steps in STEPS:
                baseline = steps == "60/50"
                result["runs"][f"{len(grid)} voxels, {steps}"] = bench_size(
                    pipeline, grid, steps, repeat, baseline=baseline
                )
        result["gpu_peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
        if not args.quick:
            result["endurance"] = endurance(pipeline, grids, args.generations)
    result["host_peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 2)
    report(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
