"""Each sampler name of `pipeline.json` means what it means in the reference, omitted parameters included."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from pydantic import ValidationError  # noqa: E402
from sn17_trellis.engine.config import MAX_GUIDANCE, SamplerParams, SamplerSpec  # noqa: E402
from sn17_trellis.engine.sampler import forward_count, sample, time_sequence  # noqa: E402
from sn17_trellis.generate_form import GenerateForm  # noqa: E402

NAMES = ("FlowEulerSampler", "FlowEulerCfgSampler", "FlowEulerGuidanceIntervalSampler")
OMITTED = {"steps": 50, "rescale_t": 1.0, "cfg_strength": 3.0, "cfg_interval": (0.0, 1.0)}
"""Defaults in the signatures of the reference's `sample` methods."""


def conditional(x: Any, t: float) -> Any:
    return np.sin(3 * x + t)


def unconditional(x: Any, t: float) -> Any:
    return np.cos(2 * x - t)


def reference(name: str, x: Any, params: dict[str, Any]) -> Any:
    """The three samplers as the reference defines them, in float64."""
    steps, r = params["steps"], params["rescale_t"]
    t = np.linspace(1, 0, steps + 1)
    t = r * t / (1 + (r - 1) * t)
    for now, then in pairwise(t):
        v = conditional(x, now)
        low, high = params["cfg_interval"] if name.endswith("IntervalSampler") else (0.0, 1.0)
        if name != "FlowEulerSampler" and low <= now <= high:
            w = params["cfg_strength"]
            v = (1 + w) * v - w * unconditional(x, now)
        x = x - (now - then) * v
    return x


class Analytic:
    """Velocities that depend on place and time."""

    def __init__(self, params: SamplerParams) -> None:
        self.times = time_sequence(params)

    def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
        t = self.times[step]
        both = (conditional(x.numpy(), t), unconditional(x.numpy(), t))
        return tuple(torch.from_numpy(each) for each in both[:count])


GIVEN = {"steps": 7, "rescale_t": 3.0, "cfg_strength": 2.5, "cfg_interval": [0.4, 0.9]}
TAKEN = {
    NAMES[0]: ("steps", "rescale_t"),
    NAMES[1]: ("steps", "rescale_t", "cfg_strength"),
    NAMES[2]: tuple(GIVEN),
}


@pytest.mark.parametrize("given", [(), ("steps",), ("steps", "rescale_t"), tuple(GIVEN)], ids=len)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_samples_as_in_the_reference(name: str, given: tuple[str, ...]) -> None:
    chosen = {key: GIVEN[key] for key in given if key in TAKEN[name]}
    params = SamplerSpec.model_validate({"name": name, "args": {"sigma_min": 1e-5}, "params": chosen}).params
    noise = np.linspace(-2, 2, 9)
    got = sample(Analytic(params), torch.from_numpy(noise), params)
    np.testing.assert_allclose(got.numpy(), reference(name, noise, {**OMITTED, **chosen}), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_forwards_are_those_of_the_name(name: str) -> None:
    params = SamplerSpec.model_validate({"name": name, "params": {"steps": 10}}).params
    assert forward_count(params) == (10 if name == "FlowEulerSampler" else 20)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_the_sampler_does_not_take_is_refused(name: str) -> None:
    for key, value in {**GIVEN, "verbose": True, "sampler": NAMES[2]}.items():
        entry = {"name": name, "params": {key: value}}
        if key in TAKEN[name]:
            assert getattr(SamplerSpec.model_validate(entry).params, key) == (
                tuple(value) if isinstance(value, list) else value
            )
        else:
            with pytest.raises(ValidationError, match=f"{name} takes .*, not {key}"):
                SamplerSpec.model_validate(entry)


def test_what_samplers_are_made_with_is_known_too() -> None:
    for entry in (
        {"name": NAMES[0], "args": {"sigma_max": 1.0}},
        {"name": "FlowHeunSampler"},
        {"name": NAMES[0], "x": 1},
    ):
        with pytest.raises(ValidationError):
            SamplerSpec.model_validate(entry)


def test_a_wish_that_the_checkpoints_sampler_cannot_fulfil_is_refused() -> None:
    unguided = SamplerSpec.model_validate({"name": NAMES[0]}).params
    assert unguided.override(steps=5).steps == 5
    with pytest.raises(ValidationError, match="FlowEulerSampler, takes no guidance"):
        unguided.override(cfg_strength=7.5)
    with pytest.raises(ValidationError, match="takes no cfg_interval"):
        SamplerSpec.model_validate({"name": NAMES[1]}).params.override(cfg_interval=(0.5, 1.0))


def test_form_and_engine_share_one_limit() -> None:
    for field in ("structure_guidance", "latent_guidance"):
        assert GenerateForm.model_validate({"prompt": "x", field: MAX_GUIDANCE})
        with pytest.raises(ValidationError):
            GenerateForm.model_validate({"prompt": "x", field: MAX_GUIDANCE + 0.5})
    assert SamplerParams(cfg_strength=MAX_GUIDANCE)
    with pytest.raises(ValidationError):
        SamplerParams(cfg_strength=MAX_GUIDANCE + 0.5)


def test_private_functions_of_torch_are_those_that_were_measured() -> None:
    """Where this fails, time `fused.linear_gelu` with the new torch and raise the bound in pyproject.toml."""
    schema = str(torch.ops.aten._addmm_activation.default._schema)
    assert schema == (
        "aten::_addmm_activation(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1, "
        "bool use_gelu=False) -> Tensor"
    )
