"""What stands between the networks, through the pipeline's own methods: each of these once went unnoticed."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sn17_trellis.engine.conditioning import preprocess  # noqa: E402
from sn17_trellis.engine.config import SamplerParams  # noqa: E402
from sn17_trellis.engine.fast import FastRunner  # noqa: E402
from sn17_trellis.engine.gaussians import Gaussians  # noqa: E402
from sn17_trellis.engine.pipeline import Pipeline, Request  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner, timesteps  # noqa: E402
from sn17_trellis.engine.sampler import is_guided, plan, sample  # noqa: E402
from sn17_trellis.engine.voxels import Voxels  # noqa: E402


class Given:
    """Gives the golden set's condition, whatever it is asked for."""

    def __init__(self, golden: Any) -> None:
        self._pair = golden.tensor("cond"), golden.tensor("neg_cond")

    def condition(self, _: Any) -> tuple[Any, Any]:
        return self._pair

    example = condition


def pipeline_of(golden: Any, **changes: Any) -> Pipeline:
    params = golden.pipeline.args
    values: dict[str, Any] = {
        "kind": "image",
        "device": torch.device("cpu"),
        "flow": golden.flow,
        "decoder": golden.decoder,
        "latent_flow": golden.latent_flow,
        "gaussian_decoder": golden.gaussian_decoder,
        "conditioner": Given(golden),
        "normalization": params.slat_normalization,
        "defaults": (params.sparse_structure_sampler.params, params.slat_sampler.params),
    }
    return Pipeline(**{**values, **changes})


def params_of(golden: Any, stage: str) -> SamplerParams:
    return SamplerParams(**golden.meta["sampler"][stage])


def test_a_request_is_the_reference_from_its_seed_to_its_gaussians(golden: Any) -> None:
    """Both draws of noise come from one generator, every stage is given what the one before made."""
    request = Request(
        seed=int(golden.arrays["seed"]),
        structure=params_of(golden, "ss"),
        latents=params_of(golden, "slat"),
        image=np.zeros((1, 1, 4), np.uint8),
    )
    asset = pipeline_of(golden).generate(request)
    assert asset.voxels == len(golden.arrays["coords"])
    expected = golden.arrays["ply_vertices"]
    got = asset.table[:, [0, 1, 2, 6, 7, 8, 9, 10, 11, 12]]
    want = expected[:, [0, 1, 2, 6, 7, 8, 9, 10, 11, 12]]
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) < 1e-3 * np.linalg.norm(want)


def test_latents_leave_the_sampler_in_the_decoders_scale(golden: Any) -> None:
    pipeline = pipeline_of(golden)
    grid = Voxels(golden.tensor("coords"), golden.meta["grid"])
    cond, uncond = golden.tensor("cond"), golden.tensor("neg_cond")
    out = pipeline.sample_latents(golden.tensor("slat_noise"), cond, uncond, grid, params_of(golden, "slat"))
    golden.check("slat_sampled", out)


def test_a_voxel_is_occupied_from_a_logit_above_zero(golden: Any) -> None:
    logits = torch.full((1, 1, 4, 4, 4), -0.1)
    logits[0, 0, 1, 2, 3], logits[0, 0, 3, 0, 0], logits[0, 0, 0, 0, 1] = 0.2, 3.0, 0.0
    pipeline = pipeline_of(golden, decoder=lambda _: logits)
    assert pipeline.decode_structure(torch.zeros(1)).coords[:, 1:].tolist() == [[1, 2, 3], [3, 0, 0]]


def test_a_second_request_with_other_steps_has_its_own_times(golden: Any) -> None:
    fast, plain = FastRunner(graphs=False), EagerRunner()
    cond, uncond = golden.tensor("cond"), golden.tensor("neg_cond")
    noise = golden.tensor("ss_noise")
    for params in (SamplerParams(steps=3), SamplerParams(steps=3, rescale_t=3.0), SamplerParams(steps=2)):
        fast_out, plain_out = (
            sample(runner.structure(golden.flow, params, cond, uncond), noise, params)
            for runner in (fast, plain)
        )
        assert float((fast_out - plain_out).norm() / plain_out.norm()) < 2e-5


def test_a_time_on_the_intervals_edge_is_guided() -> None:
    params = SamplerParams(steps=4, cfg_strength=2.0, cfg_interval=(0.5, 0.75), rescale_t=1.0)
    assert [step.t for step in plan(params)] == [1.0, 0.75, 0.5, 0.25]
    assert [step.guided for step in plan(params)] == [False, True, True, False]
    assert is_guided(params, 0.5)
    assert is_guided(params, 0.75)


def test_times_are_rounded_once_where_twice_is_another_number() -> None:
    params = SamplerParams(steps=25, rescale_t=3.0)
    t = np.linspace(1, 0, 26)
    exact = 3.0 * t / (1 + 2.0 * t)
    once, twice = np.float32(1000 * exact[:-1]), np.float32(1000) * np.float32(exact[:-1])
    assert (once != twice).any()
    np.testing.assert_array_equal(timesteps(params, torch.device("cpu")).numpy(), once)


def test_the_last_norm_is_not_in_half_precision(golden: Any) -> None:
    """Of a decoder whose blocks are float16: its output against the same sums in float64."""
    decoder = deepcopy(golden.gaussian_decoder)
    decoder.blocks.half()
    seen: list[Any] = []
    decoder.blocks[-1].register_forward_hook(lambda *call: seen.append(call[2]))
    out = decoder(golden.tensor("slat_sampled"), Voxels(golden.tensor("coords"), golden.meta["grid"]))
    hidden = seen[0].double()
    assert seen[0].dtype == torch.float16
    normed = (hidden - hidden.mean(-1, keepdim=True)) / torch.sqrt(
        hidden.var(-1, keepdim=True, unbiased=False) + 1e-5
    )
    layer = decoder.out_layer
    expected = normed @ layer.weight.double().T + layer.bias.double()
    assert float((out - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("activation", ["exp", "softplus"])
def test_a_raw_scale_of_zero_is_the_bias(golden: Any, activation: str) -> None:
    config = golden.gaussian_decoder.config.representation_config.model_copy(
        update={"scaling_activation": activation, "scaling_bias": 0.02, "filter_kernel_size_3d": 0.0}
    )
    empty = torch.zeros(1, 3)
    scaling = torch.tensor([[0.0, 1.0, -1.0]])
    got = Gaussians(empty, empty, scaling, torch.zeros(1, 4), torch.zeros(1, 1), config).scales()[0]
    assert float(got[0]) == pytest.approx(0.02, rel=1e-5)
    if activation == "exp":
        assert float(got[1] / got[0]) == pytest.approx(np.e, rel=1e-5)
    assert got[1] > got[0] > got[2]


def test_the_crop_follows_alpha_above_eighty_percent() -> None:
    """204 is 80 % of 255 and does not belong to the object, 205 does."""
    plain = np.zeros((64, 64, 4), np.uint8)
    plain[24:40, 24:40] = 255
    at, above = plain.copy(), plain.copy()
    at[16:48, 16:48, 3] = np.maximum(at[16:48, 16:48, 3], 204)
    above[16:48, 16:48, 3] = np.maximum(above[16:48, 16:48, 3], 205)
    bright = [
        (preprocess(image)[0] > preprocess(image)[0].min() + 1.0).mean() for image in (plain, at, above)
    ]
    assert bright[1] == pytest.approx(bright[0], rel=0.02)
    assert bright[2] < bright[0] / 2


def test_requests_of_one_pipeline_do_not_share_their_condition(golden: Any) -> None:
    pipeline = pipeline_of(golden, runner=FastRunner(graphs=False))
    plain = replace(pipeline, runner=EagerRunner())
    cond, params = golden.tensor("cond"), SamplerParams(steps=2, cfg_strength=3.0)
    noise = golden.tensor("ss_noise")
    for condition in (cond, cond.flip(-1), 2 * cond):
        got, expected = (
            each.sample_structure(noise, condition, 0 * cond, params) for each in (pipeline, plain)
        )
        assert float((got - expected).norm() / expected.norm()) < 2e-5
