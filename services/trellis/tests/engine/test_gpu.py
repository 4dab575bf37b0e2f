"""What only a GPU can show: compiled kernels, graphs and their memory, real out-of-memory, pinned loading."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from sn17_contract.metrics import GenerationKind  # noqa: E402
from sn17_trellis.backend import Cancelled, Job, Sampling  # noqa: E402
from sn17_trellis.engine.config import (  # noqa: E402
    GaussianDecoderConfig,
    LatentFlowConfig,
    SamplerParams,
    Savings,
    StructureFlowConfig,
)
from sn17_trellis.engine.device import empty_caches  # noqa: E402
from sn17_trellis.engine.errors import DeviceMemoryError  # noqa: E402
from sn17_trellis.engine.fast import FastRunner  # noqa: E402
from sn17_trellis.engine.gaussians import GaussianDecoder  # noqa: E402
from sn17_trellis.engine.graphs import GraphMemory, Work  # noqa: E402
from sn17_trellis.engine.latents import LatentFlow  # noqa: E402
from sn17_trellis.engine.pipeline import load_pipeline  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner  # noqa: E402
from sn17_trellis.engine.sampler import sample  # noqa: E402
from sn17_trellis.engine.structure import StructureFlow  # noqa: E402
from sn17_trellis.engine.voxels import shell  # noqa: E402
from sn17_trellis.torch_backend import TorchBackend, TorchConfig, bundled_checkpoint  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU (torch sees none)"),
]
GPU = torch.device("cuda")
FLOW: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 1280,
    "cond_channels": 768,
    "num_blocks": 2,
    "num_heads": 16,
    "use_fp16": True,
    "qk_rms_norm": True,
}
FULL = ("t_embedder", "input_layer", "out_layer", "pos_emb", "norm", "gamma", "offset_perturbation")
PARAMS = SamplerParams(steps=6, cfg_strength=2.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)


def relative(got: Any, expected: Any) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


def on_gpu(make: Any) -> Any:
    """A network of the released widths and two blocks, in the dtypes of released files."""
    torch.manual_seed(0)
    with GPU:
        network = make()
    for name, value in network.named_parameters():
        value.requires_grad_(False)
        if value.dim() > 1 and "gamma" not in name:
            value.normal_(0, 0.7 * value.flatten(1).shape[1] ** -0.5)
        if not any(part in name for part in FULL):
            value.data = value.data.half()
    return network


@pytest.fixture(scope="module")
def structure() -> Any:
    config = StructureFlowConfig(**FLOW, resolution=16, qk_rms_norm_cross=True)
    return on_gpu(lambda: StructureFlow(config))


@pytest.fixture(scope="module")
def latents() -> Any:
    config = LatentFlowConfig(**FLOW, resolution=64, num_io_res_blocks=3, io_block_channels=(256,))
    return on_gpu(lambda: LatentFlow(config))


@pytest.fixture(scope="module")
def decoder() -> Any:
    representation = {
        "lr": {"_xyz": 1, "_features_dc": 1, "_opacity": 1, "_scaling": 1, "_rotation": 0.1},
        "perturb_offset": True,
        "voxel_size": 1.5,
        "num_gaussians": 32,
        "2d_filter_kernel_size": 0.1,
        "3d_filter_kernel_size": 9e-4,
        "scaling_bias": 4e-3,
        "opacity_bias": 0.1,
        "scaling_activation": "softplus",
    }
    config = GaussianDecoderConfig(
        resolution=64, model_channels=768, latent_channels=8, num_blocks=3, num_heads=12, use_fp16=True,
        representation_config=representation,
    )  # fmt: skip
    return on_gpu(lambda: GaussianDecoder(config))


def condition(seed: int) -> tuple[Any, Any]:
    draws = torch.Generator().manual_seed(seed)
    one, none = (torch.randn(1, 77, 768, generator=draws).to(GPU) for _ in range(2))
    return one, none


@torch.inference_mode()
def test_structure_agrees_and_a_second_condition_reaches_its_graphs(structure: Any) -> None:
    fast, eager = FastRunner(), EagerRunner()
    noise = torch.randn(1, 8, 16, 16, 16, device=GPU)
    for seed in (1, 2, 1):
        out = [sample(r.structure(structure, PARAMS, *condition(seed)), noise, PARAMS) for r in (fast, eager)]
        assert relative(*out) < 3e-3
    other = sample(fast.structure(structure, PARAMS, *condition(2)), noise, PARAMS)
    assert relative(other, out[0]) > 0.01


@torch.inference_mode()
@pytest.mark.parametrize(
    "savings",
    [
        Savings(full_steps=(0, 3)),
        Savings(full_steps=(0, 2), unconditional_every=2),
        Savings(solver="ab2", unconditional_every=3),
    ],
    ids=("schedule", "schedule and difference", "solver and difference"),
)
def test_the_fast_lane_agrees_with_its_plain_form(structure: Any, savings: Savings) -> None:
    fast, eager = FastRunner(), EagerRunner()
    noise = torch.randn(1, 8, 16, 16, 16, device=GPU)
    for _ in range(2):
        out = [
            sample(r.structure(structure, PARAMS, *condition(1)), noise, PARAMS, savings=savings)
            for r in (fast, eager)
        ]
        assert relative(*out) < 5e-3
    exact = sample(fast.structure(structure, PARAMS, *condition(1)), noise, PARAMS)
    assert relative(exact, out[0]) > 1e-4


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 2, 27, 1000, 12_000, 33_333, 60_000])
def test_latents_and_gaussians_of_any_size(latents: Any, decoder: Any, count: int) -> None:
    fast, eager = FastRunner(), EagerRunner()
    voxels = shell(count, 64, GPU)
    noise = torch.randn(len(voxels), 8, device=GPU)
    cond, uncond = condition(3)
    params = SamplerParams(steps=4, cfg_strength=1.0, cfg_interval=(0.8, 1.0), rescale_t=3.0)
    out = [sample(r.latents(latents, params, cond, uncond, voxels), noise, params) for r in (fast, eager)]
    assert relative(*out) < 3e-3
    raw = [r.gaussians(decoder, out[0], voxels) for r in (fast, eager)]
    assert raw[0].shape == (len(voxels), 448)
    assert relative(*raw) < 3e-3


@torch.inference_mode()
def test_graphs_end_with_their_request_and_their_memory_is_used_again(latents: Any) -> None:
    runner = FastRunner()
    cond, uncond = condition(3)

    def run(count: int) -> None:
        voxels = shell(count, 64, GPU)
        noise = torch.randn(len(voxels), 8, device=GPU)
        sample(runner.latents(latents, PARAMS, cond, uncond, voxels), noise, PARAMS)

    run(20_000)
    held = torch.cuda.memory_reserved()
    for count in (9_000, 18_000, 7_000, 20_000, 12_345):
        run(count)
    assert torch.cuda.memory_reserved() <= 1.03 * held
    before = torch.cuda.memory_allocated()
    runner.free()
    empty_caches(GPU)
    assert torch.cuda.memory_allocated() <= before
    assert torch.cuda.memory_reserved() < 0.7 * held


MEMORY = """
import json, random, sys
from pathlib import Path
import torch
from sn17_trellis.torch_backend import TorchBackend, TorchConfig, bundled_checkpoint
from sn17_trellis.engine.voxels import shell
from sn17_trellis.engine.device import empty_caches
backend = TorchBackend(TorchConfig(bundled_checkpoint(), device="cuda"))
backend.load()
pipeline = backend._pipelines["text"]
random.seed(1)
with torch.inference_mode():
    pipeline.warm_up(shell(20_000, 32, pipeline.device))
    warm, held = torch.cuda.memory_reserved(), []
    for turn in range(30):
        if turn in (10, 20):
            backend.cleanup()
        pipeline.warm_up(shell(random.randint(100, 20_000), 32, pipeline.device))
        held.append(torch.cuda.memory_reserved())
segments = torch.cuda.memory_snapshot()
print(json.dumps({"warm": warm, "most": max(held), "fixed": sum(not s["is_expandable"] for s in segments)}))
"""


def test_memory_is_flat_over_any_order_of_sizes_also_after_a_cleanup() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["fixed"] == 0
    # One segment more (20 MiB) is no growth; these networks hold only 0.4 GB in all.
    assert found["most"] <= 1.03 * found["warm"] + 32 * 2**20


def loaded_kernels() -> int:
    """Triton kernels of the engine that this process has loaded, one for each kind of arguments."""
    modules = [module for name, module in sys.modules.items() if name.startswith("sn17_trellis.engine.")]
    found = {id(each): each for module in modules for each in vars(module).values()}
    caches = (cache for each in found.values() for cache in getattr(each, "device_caches", {}).values())
    return sum(len(cache[0]) for cache in caches)


LOAD = """
import json, sys, torch
sys.path.insert(0, sys.argv[1])
from test_gpu import TorchBackend, TorchConfig, bundled_checkpoint, loaded_kernels
backend = TorchBackend(TorchConfig(bundled_checkpoint(), device="cuda"))
backend.load()
found = {"loaded": loaded_kernels(), **backend.gpu_memory()}
backend.warmup(lambda *_: None, lambda: False)
print(json.dumps({**found, "warm": loaded_kernels()}))
"""


def test_kernels_are_loaded_with_the_weights_and_nothing_else_of_it_stays() -> None:
    """A warm-up that loads them would keep the device from others meanwhile."""
    command = [sys.executable, "-c", LOAD, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["loaded"] > 0
    # Few sizes have arguments of a kind of their own (a multiple of 16, say).
    assert found["warm"] <= 1.25 * found["loaded"]
    # 66 MiB on an H200, most of it workspaces of CUDA's libraries.
    assert found["allocated"] <= found["weights"] + 96 * 2**20


def test_whoever_shares_the_device_finds_it_idle() -> None:
    """Between two steps of a warm-up, and of a canary after the first run of its kernels."""
    backend = TorchBackend(TorchConfig(bundled_checkpoint(), device="cuda"))
    backend.load()
    idle: list[bool] = []

    def look(*_: object) -> None:
        idle.append(torch.cuda.current_stream().query())

    backend.warmup(look, lambda: False)
    backend.generate(backend.canary(), look, lambda: False)
    backend.close()
    assert len(idle) > 50
    assert all(idle)


def working(make: Callable[[], Any]) -> Work:
    """Work that may be cut before its result is made."""

    def work() -> Generator[None, None, Any]:
        yield
        return make()

    return work


def test_work_recorded_in_pieces_runs_at_once_and_again_at_each_replay() -> None:
    """What one piece leaves to another keeps its place, and what only one needs may be used by the next."""
    memory, x = GraphMemory(), torch.zeros(1 << 20, device=GPU)

    def work() -> Generator[None, None, Any]:
        total = x + 1
        for _ in range(4):
            total = total * 2 + torch.cat([x, x])[: len(x)]
            yield
        return total + 3

    recording, out = memory.record(work)
    assert len(recording.pieces) == 5
    for value in (0.0, 1.0, 5.0):
        x.fill_(value)
        if value:
            recording.replay()
        assert out.unique().tolist() == [16 * (value + 1) + 15 * value + 3]


def test_another_thread_may_compute_while_a_graph_is_recorded() -> None:
    """Whoever draws random numbers on the GPU at that time fails; nothing in the engine does."""
    memory, x = GraphMemory(), torch.ones(64, device=GPU)
    inside, done = threading.Event(), threading.Event()
    found: list[Any] = []

    def other() -> None:
        inside.wait(10)
        try:
            found.append(float((torch.arange(5.0).to(GPU) * 2).sum()))
        except RuntimeError as error:
            found.append(error)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def work() -> Generator[None, None, Any]:
        y = x + 1
        inside.set()
        done.wait(10)
        yield
        return y * 2

    graph, out = memory.record(work)
    thread.join()
    graph.replay()
    assert found == [20.0]
    assert out.tolist() == [4.0] * 64


def test_graphs_that_nobody_holds_any_more_do_not_spoil_a_recording() -> None:
    memory, x = GraphMemory(), torch.ones(64, device=GPU)
    for _ in range(3):
        left: list[Any] = [memory.record(working(lambda: x + 1))]
        left.append(left)
        del left
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        graph, out = memory.record(working(lambda: x + sum(len([each]) for each in [[]] * 2000)))
    finally:
        gc.set_threshold(*before)
    graph.replay()
    assert out.tolist() == [2001.0] * 64


def test_after_a_recording_that_failed_the_next_one_works() -> None:
    memory, x = GraphMemory(), torch.ones(64, device=GPU)

    with pytest.raises(RuntimeError):
        memory.record(working(lambda: x[torch.nonzero(x)]))
    graph, out = memory.record(working(lambda: x + 1))
    graph.replay()
    assert out.tolist() == [2.0] * 64


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    made = TorchBackend(TorchConfig(bundled_checkpoint(), device="cuda"))
    made.load()
    return made


STAGES = ("condition", "structure", "structure_decode", "latents", "gaussians", "transfer")
FEW = Sampling(structure_steps=4, latent_steps=4)
JOB = Job(GenerationKind.TASK, 5, prompt="a large red cube on a brown table", sampling=FEW)


def test_the_same_request_gives_the_same_bytes(backend: TorchBackend) -> None:
    made = [backend.generate(JOB, lambda *_: None, lambda: False).asset for _ in range(3)]
    for each in made[1:]:
        assert (each.positions == made[0].positions).all()
        assert (each.opacity_logits == made[0].opacity_logits).all()


@pytest.mark.parametrize("stage", STAGES)
def test_a_caller_may_leave_at_every_stage(backend: TorchBackend, stage: str) -> None:
    wanted = backend.generate(JOB, lambda *_: None, lambda: False).asset
    seen: list[str] = []
    with pytest.raises(Cancelled):
        backend.generate(JOB, lambda at, *_: seen.append(at), lambda: stage in seen)
    assert seen[-1] == stage
    again = backend.generate(JOB, lambda *_: None, lambda: False).asset
    assert (again.positions == wanted.positions).all()


@torch.inference_mode()
@pytest.mark.parametrize("room", [0.0, 0.02, 0.1, 0.25, 0.5])
def test_real_out_of_memory_ends_the_request_only(backend: TorchBackend, room: float) -> None:
    """The process may take `room` GiB more than it holds; whatever that stops, the next job is whole."""
    pipeline = backend._pipelines["text"]
    voxels = shell(30_000, 32, GPU)
    pipeline.warm_up(voxels)
    backend.cleanup()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room * 2**30) / total)
    try:
        pipeline.warm_up(voxels)
        failed = False
    except DeviceMemoryError:
        failed = True
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert failed or room >= 0.25
    pipeline.warm_up(voxels)


def test_weights_arrive_through_pinned_memory_as_they_are_in_the_file() -> None:
    path = bundled_checkpoint()
    on_card = load_pipeline(path, GPU)
    on_host = load_pipeline(path, torch.device("cpu"))
    for name in ("flow", "decoder", "latent_flow", "gaussian_decoder"):
        stored = getattr(on_host, name).state_dict()
        for key, value in getattr(on_card, name).state_dict().items():
            assert value.device.type == "cuda"
            assert torch.equal(value.cpu(), stored[key]), (name, key)


def test_no_file_stays_mapped_after_loading() -> None:
    script = (
        "from sn17_trellis.torch_backend import *; b = TorchBackend(TorchConfig(bundled_checkpoint()));"
        "b.load(); print(sum('mini-text' in line for line in open('/proc/self/maps')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert Path("/proc/self/maps").exists()
    assert done.stdout.splitlines()[-1] == "0"
