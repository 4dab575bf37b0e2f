"""Make the golden sets of `golden/` anew: `python services/trellis/tests/engine/make_golden.py`.

Every array is what the plain networks of this repository gave on the CPU in float32 when they agreed with
Microsoft's implementation (the larger sets that `SN17_GOLDEN` points to), so that later changes of either
path are held against it where those sets are not at hand. The layout is theirs, the sizes are the smallest
that have every part: three and two io blocks, cross qk-norm and none, windows that overlap the grid's edge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from sn17_splats import Splats, write_ply
from sn17_trellis.engine.checkpoint import ModelPath, Repositories, build, fill, locate
from sn17_trellis.engine.config import ROLES, PipelineConfig, SamplerParams
from sn17_trellis.engine.runners import EagerRunner
from sn17_trellis.engine.sampler import sample, time_sequence
from sn17_trellis.engine.voxels import Voxels, window_ids
from sn17_trellis.engine.weights import onto

FOLDER = Path(__file__).parent / "golden"
LATENT, GRID = 3, 6
FULL = ("t_embedder", "input_layer", "out_layer", "pos_emb", "norm", "offset_perturbation")
EXACT = (0, 0)
FORWARD, SAMPLED, PLACES, TURNED = (5e-6, 5e-5), (2e-5, 2e-4), (1e-6, 5e-6), (5e-5, 2e-3)
TOLERANCE = {
    "ss_noise": (1e-6, 1e-5),
    "slat_noise": (1e-6, 1e-5),
    "gs_xyz": PLACES,
    "gs_act_xyz": PLACES,
    "ply_vertices.rot": TURNED,
    **dict.fromkeys(("coords", "slat_coarse_coords", "slat_down_idx"), EXACT),
    **dict.fromkeys((f"gs_win{index}_{what}" for index in (0, 1) for what in ("id", "len")), EXACT),
    **dict.fromkeys(("ss_sampled", "ss_step_sub", "slat_sampled", "slat_sampled_norm"), SAMPLED),
    "edge0_flow_out": (1e-5, 1e-4),
    "edge1_flow_out": (1e-5, 1e-4),
    "edge0_gs_xyz": PLACES,
    "edge1_gs_xyz": PLACES,
}
"""Limits of [relative L2, largest difference over rms]; what is not named has those of one forward pass."""

REPRESENTATION = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 9e-4,
    "scaling_bias": 4e-3,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}


def describe(kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Small networks of the text-xlarge and of the image-large kind."""
    text = kind == "text"
    flow = {"in_channels": 8, "out_channels": 8, "cond_channels": 6, "qk_rms_norm": True, "use_fp16": True}
    elastic = "" if text else "Elastic"
    return {
        ROLES[0]: (
            "SparseStructureFlowModel",
            {
                **flow,
                "resolution": LATENT,
                "model_channels": 8,
                "num_blocks": 2 if text else 1,
                "num_heads": 2,
                "patch_size": 1,
                "qk_rms_norm_cross": text,
            },
        ),
        ROLES[1]: (
            "SparseStructureDecoder",
            {
                "out_channels": 1,
                "latent_channels": 8,
                "num_res_blocks": 1,
                "channels": [4, 2],
                "use_fp16": True,
            },
        ),
        ROLES[2]: (
            f"{elastic}SLatFlowModel",
            {
                **flow,
                "resolution": GRID,
                "model_channels": 8,
                "num_blocks": 2 if text else 1,
                "num_heads": 2,
                "patch_size": 2,
                "num_io_res_blocks": 3 if text else 2,
                "io_block_channels": [4],
            },
        ),
        ROLES[3]: (
            f"{elastic}SLatGaussianDecoder",
            {
                "resolution": GRID,
                "model_channels": 8,
                "latent_channels": 8,
                "num_blocks": 3 if text else 2,
                "num_heads": 2,
                "window_size": 4,
                "use_fp16": True,
                "representation_config": {**REPRESENTATION, "num_gaussians": 2 if text else 1},
            },
        ),
    }


def write_checkpoint(directory: Path, kind: str, seed: int) -> None:
    """Random weights with released dtypes; every kind of weight is far enough from its default to be seen."""
    draws = torch.Generator().manual_seed(seed)
    (directory / "ckpts").mkdir(parents=True, exist_ok=True)
    for role, (name, args) in describe(kind).items():
        base = directory / "ckpts" / role
        base.with_suffix(".json").write_text(json.dumps({"name": name, "args": args}, indent=1) + "\n")
        module = build(ModelPath(role, base.with_suffix(".json"), base))
        weights = {}
        for key, value in module.state_dict().items():
            fan_in = value[0].numel() if value.dim() > 1 else 1
            centre = 1.0 if key.endswith("gamma") or (key.endswith("weight") and value.dim() == 1) else 0.0
            drawn = torch.randn(value.shape, generator=draws)
            drawn = centre + drawn * (fan_in**-0.5 if value.dim() > 1 and not centre else 0.3)
            full = any(part in key for part in FULL)
            weights[key] = drawn.half().to(torch.float32 if full else torch.float16)
        save_file(weights, base.with_suffix(".safetensors"))
    params = {"steps": 25, "cfg_strength": 7.5, "cfg_interval": [0.5, 0.95], "rescale_t": 3.0}
    sampler = {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": 1e-5}, "params": params}
    values = torch.randn(16, generator=draws).tolist()
    pipeline = {
        "name": f"Trellis{kind.title()}To3DPipeline",
        "args": {
            "models": {role: f"ckpts/{role}" for role in ROLES},
            "sparse_structure_sampler": sampler,
            "slat_sampler": sampler,
            "slat_normalization": {"mean": values[:8], "std": [1 + abs(value) for value in values[8:]]},
        },
    }
    (directory / "pipeline.json").write_text(json.dumps(pipeline, indent=1) + "\n")


class Recorder:
    """Notes the first input and output of modules by name."""

    def __init__(self, **modules: torch.nn.Module) -> None:
        self.seen: dict[str, Any] = {}
        for name, module in modules.items():
            module.register_forward_hook(lambda _m, inputs, out, name=name: self._keep(name, inputs[0], out))

    def _keep(self, name: str, given: Any, out: Any) -> None:
        self.seen.setdefault(name, out)
        self.seen.setdefault(f"{name}_in", given)


def make(kind: str, seed: int) -> None:
    """One set: weights, every array, sizes and tolerances."""
    directory = FOLDER / kind
    write_checkpoint(directory, kind, seed)
    config = PipelineConfig.model_validate_json((directory / "pipeline.json").read_text())
    networks: list[Any] = []
    for role in ROLES:
        path = locate(directory, role, config.args.models[role], Repositories())
        networks.append(fill(build(path), path, onto(torch.device("cpu"), torch.float32)))
    flow, decoder, latent_flow, gaussian_decoder = networks
    steps = {"ss": SamplerParams(steps=3, cfg_strength=7.5, cfg_interval=(0.5, 0.95), rescale_t=3.0)}
    steps["slat"] = SamplerParams(steps=3, cfg_strength=3.5, cfg_interval=(0.5, 0.95), rescale_t=3.0)
    a: dict[str, Any] = {"seed": np.int64(seed)}
    torch.manual_seed(seed)
    a["ss_noise"] = torch.randn(1, 8, LATENT, LATENT, LATENT)
    state = torch.get_rng_state()
    draws = torch.Generator().manual_seed(seed + 1)
    a["cond"] = torch.randn(1, 5, 6, generator=draws)
    a["neg_cond"] = torch.randn(1, 5, 6, generator=draws) if kind == "text" else torch.zeros(1, 5, 6)
    structure(a, flow, decoder, steps["ss"], draws, directory)
    voxels = Voxels(torch.argwhere(a["ss_logits"] > 0)[:, [0, 2, 3, 4]].int(), GRID)
    a["coords"] = voxels.coords
    torch.set_rng_state(state)
    a["slat_noise"] = torch.randn(len(voxels), 8)
    latents(a, latent_flow, steps["slat"], voxels, draws, config)
    gaussians(a, gaussian_decoder, voxels)
    for index, coords in enumerate(edge_sets()):
        edge = Voxels(coords, GRID)
        a[f"edge{index}_coords"] = coords
        a[f"edge{index}_x"] = torch.randn(len(edge), 8, generator=draws)
        a[f"edge{index}_gs_in"] = torch.randn(len(edge), 8, generator=draws)
        a["edge_t"] = torch.tensor([420.0])
        a[f"edge{index}_flow_out"] = latent_flow(a[f"edge{index}_x"][None], a["edge_t"], a["cond"], edge)
        raw = gaussian_decoder(a[f"edge{index}_gs_in"], edge)
        a[f"edge{index}_gs_out"] = raw
        a[f"edge{index}_gs_xyz"] = gaussian_decoder.represent(raw, edge).xyz
    arrays = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in a.items()}
    np.savez_compressed(directory / "golden.npz", **arrays)
    names = [*arrays, *(f"ply_vertices.{part}" for part in ("xyz_normal", "f_dc", "opacity", "scale", "rot"))]
    meta = {
        "format": 1,
        "seed": seed,
        "grid": GRID,
        "latent_resolution": LATENT,
        "voxels": len(voxels),
        "edge_sets": 2,
        "ss_logit_margin": float(a["ss_logits"].abs().min()),
        "sampler": {stage: json.loads(params.model_dump_json()) for stage, params in steps.items()},
        "provenance": {"made_by": "make_golden.py", "torch": torch.__version__, "compute": "CPU, float32"},
        "tolerance": {name: TOLERANCE.get(name, FORWARD) for name in names},
    }
    (directory / "golden.json").write_text(json.dumps(meta, indent=1) + "\n")


def flow_calls(a: dict[str, Any], stage: str, flow: Any, x: Any, extra: tuple[Any, ...]) -> None:
    a[f"{stage}_flow_x"] = x
    a[f"{stage}_flow_t"] = torch.tensor([900.0, 310.0])
    a[f"{stage}_flow_cond"] = torch.cat([a["cond"], a["neg_cond"]])
    parts = (f"{stage}_flow_{name}" for name in ("x", "t", "cond"))
    given = list(zip(*(a[part].split(1) for part in parts), strict=True))
    a[f"{stage}_flow_out"] = torch.cat([flow(*call, *extra) for call in given])
    a[f"{stage}_t_emb"] = flow.t_embedder(a[f"{stage}_flow_t"])


def structure(
    a: dict[str, Any], flow: Any, decoder: Any, params: SamplerParams, draws: torch.Generator, directory: Path
) -> None:
    a["ss_t_seq"] = time_sequence(params)
    a["ss_rows"] = np.arange(0, LATENT**3, 5, dtype=np.int32)
    seen = Recorder(first=flow.blocks[0], last=flow.blocks[-1]).seen
    flow_calls(a, "ss", flow, torch.randn(2, *a["ss_noise"].shape[1:], generator=draws), ())
    a["ss_t_freq"] = flow.t_embedder.sinusoids(a["ss_flow_t"])
    a["ss_h0_rows"] = seen["first_in"][0, a["ss_rows"]]
    a["ss_block0_rows"] = seen["first"][0, a["ss_rows"]]
    a["ss_blocklast_rows"] = seen["last"][0, a["ss_rows"]]
    states: list[Any] = []
    velocity = EagerRunner().structure(flow, params, a["cond"], a["neg_cond"])

    class Spy:
        def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
            states.append(x)
            return velocity.branches(x, step, count, deep)

    a["ss_sampled"] = sample(Spy(), a["ss_noise"], params)
    a["ss_step_sub"] = torch.stack([x[0, :, :4, :4, :4] for x in [*states[1:], a["ss_sampled"]]])
    # A sixth of the voxels, and none within reach of rounding: the threshold moves into the widest gap there.
    logits = decoder(a["ss_sampled"]).flatten().sort().values
    place = len(logits) * 5 // 6
    near = logits[place - 20 : place + 20]
    widest = int((near[1:] - near[:-1]).argmax())
    shift = float((near[widest] + near[widest + 1]) / 2)
    file = directory / "ckpts" / f"{ROLES[1]}.safetensors"
    decoder.out_layer[2].bias.sub_(shift)
    save_file(_as_stored(decoder, file), file)
    ups = [block for block in decoder.blocks if type(block).__name__ == "Upsample"]
    seen = Recorder(middle=decoder.middle_block, **{f"up{i}": up for i, up in enumerate(ups)}).seen
    a["ss_logits"] = decoder(a["ss_sampled"])
    for name in ("middle", *(f"up{index}" for index in range(len(ups)))):
        a[f"ss_dec_{name}_sub"] = seen[name][0, :, :4, :4, :4]


def _as_stored(module: Any, file: Path) -> dict[str, Any]:
    """The module's weights in the dtypes of the file."""
    from safetensors.torch import load_file

    before = load_file(file)
    return {key: value.to(before[key].dtype).contiguous() for key, value in module.state_dict().items()}


def latents(
    a: dict[str, Any],
    flow: Any,
    params: SamplerParams,
    voxels: Voxels,
    draws: torch.Generator,
    config: PipelineConfig,
) -> None:
    a["slat_t_seq"] = time_sequence(params)
    a["slat_rows"] = np.arange(0, len(voxels), max(1, len(voxels) // 20), dtype=np.int32)
    coarse = voxels.coarse
    a["slat_crows"] = np.arange(0, len(coarse.voxels), max(1, len(coarse.voxels) // 20), dtype=np.int32)
    a["slat_coarse_coords"], a["slat_down_idx"] = coarse.voxels.coords, coarse.parent
    conv = flow.input_blocks[0].conv1
    watched = {"conv": conv, "inlast": flow.input_blocks[-1], "up": flow.out_blocks[0]}
    seen = Recorder(first=flow.blocks[0], last=flow.blocks[-1], **watched).seen
    flow_calls(a, "slat", flow, torch.randn(2, len(voxels), 8, generator=draws), (voxels,))
    a["slat_conv_coords"], a["slat_conv_in"], a["slat_conv_out"] = (
        voxels.coords,
        seen["conv_in"][0],
        seen["conv"],
    )
    a["slat_down_in"] = seen["inlast_in"][0]
    a["slat_down_out"] = coarse.pool(a["slat_down_in"][None])[0]
    a["slat_inlast_crows"] = seen["inlast"][0, a["slat_crows"]]
    a["slat_h0_crows"] = seen["first_in"][0, a["slat_crows"]]
    a["slat_block0_crows"] = seen["first"][0, a["slat_crows"]]
    a["slat_blocklast_crows"] = seen["last"][0, a["slat_crows"]]
    a["slat_up_rows"] = seen["up"][0, a["slat_rows"]]
    velocity = EagerRunner().latents(flow, params, a["cond"], a["neg_cond"], voxels)
    a["slat_sampled_norm"] = sample(velocity, a["slat_noise"], params)
    scale = config.args.slat_normalization
    a["slat_sampled"] = a["slat_sampled_norm"] * torch.tensor(scale.std) + torch.tensor(scale.mean)


def gaussians(a: dict[str, Any], decoder: Any, voxels: Voxels) -> None:
    rows, size = a["slat_rows"], decoder.config.window_size
    for index, shift in enumerate((0, size // 2)):
        a[f"gs_win{index}_id"], a[f"gs_win{index}_len"] = window_ids(voxels, size, shift)
    blocks = decoder.blocks
    seen = Recorder(first=blocks[0], second=blocks[1], last=blocks[-1]).seen
    raw = decoder(a["slat_sampled"], voxels)
    a["gs_in_rows"], a["gs_block0_rows"] = seen["first_in"][rows], seen["first"][rows]
    a["gs_block1_rows"], a["gs_blocklast_rows"] = seen["second"][rows], seen["last"][rows]
    a["gs_out_rows"] = raw[rows]
    out = decoder.represent(raw, voxels)
    for name in ("xyz", "f_dc", "scaling", "rotation", "opacity"):
        a[f"gs_{name}"] = getattr(out, name)
    a["gs_act_xyz"], a["gs_act_scaling"] = out.positions()[::5], out.scales()[::5]
    a["gs_act_rotation"] = torch.nn.functional.normalize(out.rotations()[::5], dim=1)
    a["gs_act_opacity"] = torch.sigmoid(out.opacity_logits())[::5]
    t = out.pack().numpy()
    ply = write_ply(Splats(t[:, :3], t[:, 10:13], t[:, 13:17], t[:, 9], t[:, 6:9]), normals=True)
    a["ply_header"] = np.frombuffer(ply[: len(ply) - 68 * len(t)], np.uint8)
    a["ply_vertices"] = np.frombuffer(ply[len(ply) - 68 * len(t) :], "<f4").reshape(-1, 17)


def edge_sets() -> list[torch.Tensor]:
    """Voxels in the grid's corners, far from each other; a block that lies across windows."""
    last = GRID - 1
    corners = [(0, x, y, z) for x in (0, last) for y in (0, last) for z in (0, last)]
    block = [(0, x, y, z) for x in range(2, 5) for y in range(2, 5) for z in range(1, 3)]
    return [torch.tensor(rows, dtype=torch.int32) for rows in (corners, block)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        make("text", 42)
        make("image", 43)
