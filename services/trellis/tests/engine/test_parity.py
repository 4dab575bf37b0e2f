"""Every stage against golden arrays, each fed the golden input of that stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sn17_splats import Splats, write_ply  # noqa: E402
from sn17_trellis.engine.config import SamplerParams  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner, timesteps  # noqa: E402
from sn17_trellis.engine.sampler import sample, time_sequence  # noqa: E402
from sn17_trellis.engine.voxels import Voxels, window_ids  # noqa: E402


@contextmanager
def recorded(**modules: Any) -> Iterator[dict[str, Any]]:
    """Inputs (`<name>_in`) and outputs of modules during their first call."""
    seen: dict[str, Any] = {}

    def hook(name: str) -> Any:
        def keep(_module: Any, inputs: Any, output: Any) -> None:
            seen.setdefault(name, output)
            seen.setdefault(f"{name}_in", inputs[0])

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def voxels(golden: Any, name: str = "coords") -> Voxels:
    return Voxels(golden.tensor(name), golden.meta["grid"])


def test_noise_is_drawn_like_the_reference(golden: Any) -> None:
    torch.manual_seed(int(golden.arrays["seed"]))
    golden.check("ss_noise", torch.randn(golden.arrays["ss_noise"].shape))
    golden.check("slat_noise", torch.randn(golden.arrays["slat_noise"].shape))


def test_time_sequences_and_embeddings(golden: Any) -> None:
    for stage, flow in (("ss", golden.flow), ("slat", golden.latent_flow)):
        params = SamplerParams(**golden.meta["sampler"][stage])
        golden.check(f"{stage}_t_seq", time_sequence(params))
        golden.check(f"{stage}_t_emb", flow.t_embedder(golden.tensor(f"{stage}_flow_t")))
    golden.check("ss_t_freq", golden.flow.t_embedder.sinusoids(golden.tensor("ss_flow_t")))


def test_structure_flow(golden: Any) -> None:
    flow, rows = golden.flow, golden.arrays["ss_rows"]
    with recorded(first=flow.blocks[0], last=flow.blocks[-1]) as seen:
        for call in range(2):
            part = slice(call, call + 1)
            out = flow(*(golden.tensor(f"ss_flow_{name}")[part] for name in ("x", "t", "cond")))
            golden.check("ss_flow_out", out, golden.arrays["ss_flow_out"][part])
    golden.check("ss_h0_rows", seen["first_in"][0, rows])
    golden.check("ss_block0_rows", seen["first"][0, rows])
    golden.check("ss_blocklast_rows", seen["last"][0, rows])


def test_structure_sampling(golden: Any) -> None:
    params = SamplerParams(**golden.meta["sampler"]["ss"])
    velocity = EagerRunner().structure(golden.flow, params, golden.tensor("cond"), golden.tensor("neg_cond"))
    states: list[Any] = []

    class Spy:
        def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
            states.append(x)
            return velocity.branches(x, step, count, deep)

    out = sample(Spy(), golden.tensor("ss_noise"), params)
    golden.check("ss_sampled", out)
    golden.check("ss_step_sub", torch.stack([x[0, :, :4, :4, :4] for x in [*states[1:], out]]))


def test_structure_decoder(golden: Any) -> None:
    decoder = golden.decoder
    ups = [block for block in decoder.blocks if type(block).__name__ == "Upsample"]
    names = {f"up{index}": block for index, block in enumerate(ups)}
    with recorded(middle=decoder.middle_block, **names) as seen:
        logits = decoder(golden.tensor("ss_sampled"))
    golden.check("ss_logits", logits)
    for name in ("middle", *names):
        if f"ss_dec_{name}_sub" in golden.arrays:
            golden.check(f"ss_dec_{name}_sub", seen[name][0, :, :4, :4, :4])
    occupied = torch.argwhere(logits > 0)[:, [0, 2, 3, 4]].int()
    golden.check("coords", occupied)


def test_voxel_tables(golden: Any) -> None:
    grid = voxels(golden)
    golden.check("slat_coarse_coords", grid.coarse.voxels.coords)
    golden.check("slat_down_idx", grid.coarse.parent)
    down = grid.coarse.pool(golden.tensor("slat_down_in")[None])[0]
    golden.check("slat_down_out", down)
    size = golden.gaussian_decoder.config.window_size
    for index, shift in enumerate((0, size // 2)):
        rank, counts = window_ids(grid, size, shift)
        golden.check(f"gs_win{index}_id", rank)
        golden.check(f"gs_win{index}_len", counts)


def test_latent_flow(golden: Any) -> None:
    flow, grid = golden.latent_flow, voxels(golden)
    conv, given = flow.input_blocks[0].conv1, golden.tensor("slat_conv_in")
    # With one block for input and output it is the coarse level's.
    level = grid if len(given) == len(grid) else grid.coarse.voxels
    golden.check("slat_conv_out", conv(given[None], level))
    watched = {"inlast": flow.input_blocks[-1], "up": flow.out_blocks[0]}
    with recorded(first=flow.blocks[0], last=flow.blocks[-1], **watched) as seen:
        for call in range(2):
            part = slice(call, call + 1)
            out = flow(*(golden.tensor(f"slat_flow_{name}")[part] for name in ("x", "t", "cond")), grid)
            golden.check("slat_flow_out", out, golden.arrays["slat_flow_out"][part])
    rows, coarse_rows = golden.arrays["slat_rows"], golden.arrays["slat_crows"]
    golden.check("slat_inlast_crows", seen["inlast"][0, coarse_rows])
    golden.check("slat_h0_crows", seen["first_in"][0, coarse_rows])
    golden.check("slat_block0_crows", seen["first"][0, coarse_rows])
    golden.check("slat_blocklast_crows", seen["last"][0, coarse_rows])
    golden.check("slat_up_rows", seen["up"][0, rows])


def test_latent_sampling(golden: Any) -> None:
    params = SamplerParams(**golden.meta["sampler"]["slat"])
    velocity = EagerRunner().latents(
        golden.latent_flow, params, golden.tensor("cond"), golden.tensor("neg_cond"), voxels(golden)
    )
    out = sample(velocity, golden.tensor("slat_noise"), params)
    golden.check("slat_sampled_norm", out)
    scale = golden.pipeline.args.slat_normalization
    golden.check("slat_sampled", out * torch.tensor(scale.std) + torch.tensor(scale.mean))


def test_gaussian_decoder(golden: Any) -> None:
    decoder, grid, rows = golden.gaussian_decoder, voxels(golden), golden.arrays["slat_rows"]
    blocks = decoder.blocks
    with recorded(first=blocks[0], second=blocks[1], last=blocks[-1]) as seen:
        raw = decoder(golden.tensor("slat_sampled"), grid)
    golden.check("gs_in_rows", seen["first_in"][rows])
    golden.check("gs_block0_rows", seen["first"][rows])
    golden.check("gs_block1_rows", seen["second"][rows])
    golden.check("gs_blocklast_rows", seen["last"][rows])
    golden.check("gs_out_rows", raw[rows])
    out = decoder.represent(raw, grid)
    golden.check("gs_xyz", out.xyz)
    golden.check("gs_f_dc", out.f_dc)
    golden.check("gs_scaling", out.scaling)
    golden.check("gs_rotation", out.rotation)
    golden.check("gs_opacity", out.opacity)
    golden.check("gs_act_xyz", out.positions()[::5])
    golden.check("gs_act_scaling", out.scales()[::5])
    golden.check("gs_act_rotation", torch.nn.functional.normalize(out.rotations()[::5], dim=1))
    golden.check("gs_act_opacity", torch.sigmoid(out.opacity_logits())[::5])


def test_ply(golden: Any) -> None:
    decoder, grid = golden.gaussian_decoder, voxels(golden)
    table = decoder.represent(decoder(golden.tensor("slat_sampled"), grid), grid).pack().numpy()
    data = write_ply(
        Splats(table[:, :3], table[:, 10:13], table[:, 13:17], table[:, 9], table[:, 6:9]), normals=True
    )
    header = golden.arrays["ply_header"].tobytes()
    assert data.startswith(header)
    assert len(data) == len(header) + 68 * len(table)
    got = np.frombuffer(data, "<f4", offset=len(header)).reshape(-1, 17)
    expected, limits = golden.arrays["ply_vertices"], golden.meta["tolerance"]
    for name, columns in (
        ("xyz_normal", slice(0, 6)),
        ("f_dc", slice(6, 9)),
        ("opacity", slice(9, 10)),
        ("scale", slice(10, 13)),
    ):
        golden.check(name, got[:, columns], expected[:, columns], limits[f"ply_vertices.{name}"])
    sign = np.sign((got[:, 13:] * expected[:, 13:]).sum(1, keepdims=True))
    golden.check("rot", got[:, 13:] * sign, expected[:, 13:], limits["ply_vertices.rot"])
    np.testing.assert_allclose(np.linalg.norm(got[:, 13:], axis=1), 1, rtol=1e-5)


def test_edge_voxel_sets(golden: Any) -> None:
    for index in range(golden.meta["edge_sets"]):
        grid = voxels(golden, f"edge{index}_coords")
        out = golden.latent_flow(
            golden.tensor(f"edge{index}_x")[None], golden.tensor("edge_t"), golden.tensor("cond"), grid
        )
        golden.check(f"edge{index}_flow_out", out)
        raw = golden.gaussian_decoder(golden.tensor(f"edge{index}_gs_in"), grid)
        golden.check(f"edge{index}_gs_out", raw)
        golden.check(f"edge{index}_gs_xyz", golden.gaussian_decoder.represent(raw, grid).xyz)


def test_timesteps_are_rounded_once(golden: Any) -> None:
    params = SamplerParams(**golden.meta["sampler"]["ss"])
    expected = np.float32(1000 * golden.arrays["ss_t_seq"][:-1])
    np.testing.assert_array_equal(timesteps(params, torch.device("cpu")).numpy(), expected)
