"""What `trellis_gpu.py` measures in processes of their own: loading, the worker's backend under a limit."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
GIB = 1024**3


def status(*names: str) -> dict[str, float]:
    """Entries of /proc/self/status in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) / 1024**2 for line in lines if line.endswith("kB")}
    return {name: round(found.get(name, 0.0), 3) for name in names}


def memory() -> dict[str, float]:
    """Host memory by component, what cannot be reclaimed of it, and the device's, in GiB."""
    import torch

    host = status("RssAnon", "RssShmem", "VmPTE", "RssFile")
    return {
        **host,
        "unreclaimable": round(host["RssAnon"] + host["RssShmem"] + host["VmPTE"], 3),
        "gpu_allocated": round(torch.cuda.memory_allocated() / GIB, 3),
        "gpu_reserved": round(torch.cuda.memory_reserved() / GIB, 3),
    }


def limit_memory(gib: int) -> str:
    """Move this process under a cgroup limit where that is possible; says what was done."""

    def write(file: Path, text: str) -> None:
        with file.open("r+") as opened:
            opened.write(text)

    reason = ""
    for base, limit in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        try:
            # The kernel's own files are opened, never made: under cgroup v1 the first folder is a plain one.
            if limit == "memory.max":
                write(Path(base) / "cgroup.subtree_control", "+memory")
            group = Path(base) / f"sn17-bench-{os.getpid()}"
            group.mkdir(exist_ok=True)
            write(group / limit, str(gib * GIB))
            write(group / "cgroup.procs", str(os.getpid()))
        except OSError as error:
            reason = str(error)
            continue
        return f"under a {gib} GiB cgroup limit"
    return f"without a memory limit, which could not be set here ({reason})"


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    import torch

    torch.cuda.synchronize()
    start = time.perf_counter()
    out = function()
    torch.cuda.synchronize()
    return time.perf_counter() - start, out


def load(directory: Path) -> dict[str, Any]:
    """Imports, the start of CUDA and loading, apart."""
    import torch
    from sn17_trellis.engine.checkpoint import (
        Repositories,
        build,
        fill,
        locate,
        read_pipeline,
    )
    from sn17_trellis.engine.conditioning import TextConditioner
    from sn17_trellis.engine.config import ROLES
    from sn17_trellis.engine.pipeline import check_checkpoint
    from sn17_trellis.engine.weights import onto
    from transformers import AutoTokenizer, CLIPTextModel  # noqa: F401

    imports = time.perf_counter() - STARTED
    imported = status("RssAnon", "VmHWM")
    cuda, _ = timed(lambda: torch.zeros(1, device="cuda"))
    device, places = torch.device("cuda"), Repositories()
    parts: dict[str, float] = {}
    parts["check"], config = timed(lambda: check_checkpoint(directory))
    kept = []
    for role in ROLES:
        path = locate(directory, role, config.args.models[role], places)
        parts[role], network = timed(lambda path=path: fill(build(path), path, onto(device, None)))
        kept.append(network)
    config = read_pipeline(directory)
    parts["condition"], conditioner = timed(lambda: TextConditioner.load(directory, config, device, places))
    kept.append(conditioner)
    after = status("RssAnon", "RssFile", "RssShmem", "VmHWM")
    return {
        "seconds": sum(parts.values()),
        "seconds_with_imports": time.perf_counter() - STARTED,
        "imports_seconds": imports,
        "cuda_start_seconds": cuda,
        "parts": parts,
        "host_after_imports": imported,
        "host_after": after,
        "host_peak_gib": after["VmHWM"],
        "gpu_weights_gib": round(torch.cuda.memory_allocated() / GIB, 2),
    }


def attention() -> Iterator[tuple[str, float]]:
    """Self-attention of both branches of a step, TFLOP/s by head width and tokens: ours, cuDNN's and flash.

    cuDNN makes a plan for each length; the last figures are what one costs. The relative error is against
    attention in float32.
    """
    import torch
    import torch.nn.functional as fn
    from sn17_trellis.engine import fused
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def cudnn(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            out = fn.scaled_dot_product_attention(*(each.transpose(1, 2) for each in (q, k, v)))
        return out.transpose(1, 2).flatten(2)

    kinds = {
        "ours": fused.bounded_attention,
        "ours, running maximum": fused.self_attention,
        "cudnn": cudnn,
        "flash": fused.few_keys_attention,
    }
    for width, tokens in product((80, 64), (4096, 4892, 2896)):
        torch.manual_seed(0)
        qkv = torch.randn(2, tokens, 3 * 16, width, device="cuda", dtype=torch.float16)
        gamma = torch.rand(32, width, device="cuda") / 2 + 0.75
        qk = fused.head_norm(qkv[:, :, :32], gamma)
        heads = qk[:, :, :16], qk[:, :, 16:], qkv[:, :, 32:]
        exact = fused.few_keys_attention(*(each.float() for each in heads))
        qk = fused.head_norm(qkv[:, :, :32], fused.bounded_gammas(gamma))
        short = qk[:, :, :16], qk[:, :, 16:], qkv[:, :, 32:]
        for kind, attend in kinds.items():
            given = short if kind == "ours" else heads
            error = float((attend(*given).float() - exact).norm() / exact.norm())
            assert error < 0.01, (kind, width, error)
            for _ in range(3):
                attend(*given)
            seconds, _ = timed(lambda a=attend, h=given: [a(*h) for _ in range(20)])
            yield (
                f"{kind}, width {width}, {tokens} tokens",
                round(20 * 2 * 4 * 16 * tokens**2 * width / seconds / 1e12, 1),
            )
            yield f"error of {kind}, width {width}, {tokens} tokens", round(error, 6)
    lengths = [128 * (60 + each) for each in range(20)]
    largest = torch.randn(2, lengths[-1], 3 * 16, 80, device="cuda", dtype=torch.float16)
    before = status("RssAnon")["RssAnon"]
    seconds, _ = timed(
        lambda: [
            cudnn(part[:, :, :16], part[:, :, 16:32], part[:, :, 32:])
            for part in (largest[:, :length] for length in lengths)
        ]
    )
    yield "cudnn, seconds a plan", round(seconds / len(lengths), 4)
    yield "cudnn, host MiB a plan", round((status("RssAnon")["RssAnon"] - before) * 1024 / len(lengths), 2)


def sizes(growing: str, requests: int = 60) -> dict[str, Any]:
    """Device memory held after each of many requests of random sizes, two clean-ups between them.

    The latent flow of text-xlarge alone, warmed up as the worker does, four steps a request. `growing` "no":
    as torch's allocator does it unasked.
    """
    if growing == "no":
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:False"
    import random

    import torch
    from sn17_trellis.engine.config import LatentFlowConfig, SamplerParams
    from sn17_trellis.engine.device import empty_caches
    from sn17_trellis.engine.fast import FastRunner
    from sn17_trellis.engine.latents import LatentFlow
    from sn17_trellis.engine.sampler import sample
    from sn17_trellis.engine.voxels import shell
    from sn17_trellis.torch_backend import WARM_VOXELS

    from sn17_bench.trellis_checkpoint import flows

    device, runner = torch.device("cuda"), FastRunner()
    params = SamplerParams(steps=4, cfg_strength=1.0, cfg_interval=(0.8, 1.0), rescale_t=3.0)

    def held() -> float:
        return round(torch.cuda.memory_reserved() / GIB, 3)

    with torch.inference_mode():
        with device:
            flow = LatentFlow(LatentFlowConfig(**flows("text")["slat_flow_model"][1]))
        for name, value in flow.named_parameters():
            if not any(part in name for part in ("t_embedder", "input_layer", "out_layer", "norm")):
                value.data = value.data.half()
        cond, uncond = (torch.randn(1, 77, 768, device=device) for _ in range(2))

        def run(count: int) -> None:
            voxels = shell(count, 64, device)
            noise = torch.randn(len(voxels), 8, device=device)
            sample(runner.latents(flow, params, cond, uncond, voxels), noise, params, lambda *_: None)

        empty_caches(device)
        for count in WARM_VOXELS:
            run(count)
        warm, series, draws = held(), [], random.Random(1)
        for request in range(requests):
            if request in (requests // 3, 2 * requests // 3):
                runner.free()
                empty_caches(device)
            run(draws.randint(8_000, 31_000))
            series.append(held())
    return {"warm": warm, "most": max(series), "growth": round(max(series) / warm, 3), "series": series}


def backend(text: Path, image: Path, generations: int, book: Path) -> dict[str, Any]:
    """Both models in the worker's own backend: start, warm-up, progress, cancelling, many generations."""
    out: dict[str, Any] = {"memory_limit": limit_memory(12)}
    from sn17_contract.metrics import GenerationKind
    from sn17_service import return_heap
    from sn17_splats import write_ply
    from sn17_trellis.backend import Cancelled, EmptyStructure, Job, Sampling, StructureTooLarge
    from sn17_trellis.torch_backend import TorchBackend, TorchConfig, _test_picture

    out["imports_seconds"] = time.perf_counter() - STARTED
    made = TorchBackend(TorchConfig(text, image, "refused", (text.parent.parent,), verified=book))
    out["load_seconds"], _ = timed(made.load)
    out["after_load"] = memory()
    out["warmup_seconds"], _ = timed(lambda: made.warmup(lambda *_: None, lambda: False))
    out["after_warmup"] = memory()
    print(json.dumps(out), file=sys.stderr, flush=True)

    few, picture = Sampling(structure_steps=4, latent_steps=4), _test_picture()

    def job(seed: int, sampling: Sampling = few) -> Job:
        if seed % 3 == 2:
            return Job(GenerationKind.TASK, seed, image=picture, sampling=sampling)
        return Job(GenerationKind.TASK, seed, prompt="a small red cube", sampling=sampling)

    reports: list[tuple[str, int, float]] = []
    begun = time.perf_counter()
    left: list[float] = []

    def on_step(stage: str, step: int, _steps: int) -> None:
        reports.append((stage, step, time.perf_counter() - begun))
        if stage == "structure" and step == 30:
            left.append(time.perf_counter())

    try:
        made.generate(job(0, Sampling()), on_step, lambda: bool(left))
    except Cancelled:
        out["cancel_seconds"] = time.perf_counter() - left[0]
    times = [at for stage, _, at in reports if stage == "structure"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    out["step_reports"] = {
        "count": len(times),
        "median_gap": sorted(gaps)[len(gaps) // 2],
        "longest_gap": max(gaps),
    }

    readings, seconds, refused = [], [], 0
    for seed in range(generations):
        # The first generations find what the warm-up left; two clean-ups lie between the others.
        if seed in (generations // 3, 2 * generations // 3):
            made.cleanup()
            return_heap()
        try:
            taken, result = timed(lambda seed=seed: made.generate(job(seed), lambda *_: None, lambda: False))
        except (EmptyStructure, StructureTooLarge):
            refused += 1
            continue
        write_ply(result.asset)
        seconds.append(round(taken, 3))
        readings.append({"gaussians": result.gaussians, **memory()})
        del result
    most = max(reading["gpu_reserved"] for reading in readings)
    return {
        **out,
        "gpu_growth": round(most / out["after_warmup"]["gpu_reserved"], 4),
        "generations": readings,
        "generation_seconds": seconds,
        "refused": refused,
        "at_end": memory(),
        "host_peak_gib": status("VmHWM")["VmHWM"],
    }


if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[4]
    sys.path[:0] = [
        str(ROOT / path)
        for path in ("services/trellis/src", "libs/splats/src", "libs/contract/src", "libs/service/src")
    ]
    what, *paths = sys.argv[1:]
    result: dict[str, Any] = {}
    if what == "attention":
        for name, rate in attention():
            # Each as it comes: a kernel that fails takes the process with it.
            result[name] = rate
            print(json.dumps(result), flush=True)
        sys.exit()
    if what == "load":
        result = load(Path(paths[0]))
    elif what == "sizes":
        result = sizes(paths[0])
    else:
        result = backend(Path(paths[0]), Path(paths[1]), int(paths[2]), Path(paths[3]))
    print(json.dumps(result))
