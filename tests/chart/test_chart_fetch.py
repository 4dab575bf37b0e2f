"""The GPU preset's fetch container: what the chart renders is run against a hub with three repositories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chart_cases import CHART, REVISION, ChartError

pytest.importorskip("huggingface_hub", reason="fetch needs the 'torch' extra")

from model_hub import ROLES, WEIGHTS, Hub, command

pytestmark = pytest.mark.cluster
TEXT, IMAGE = "microsoft/TRELLIS-text-xlarge", "microsoft/TRELLIS-image-large"
ENCODER = "openai/clip-vit-large-patch14"
DECODERS = (ROLES[1], ROLES[3])
PRESET = ("-f", str(CHART / "values-single-gpu.yaml"))


@pytest.fixture
def hub() -> Iterator[Hub]:
    """As the released repositories refer to each other: the text model takes the image model's decoders."""
    made = Hub()
    sampler = {"name": "FlowEulerGuidanceIntervalSampler"}
    models = {role: f"ckpts/{role}" for role in ROLES} | {role: f"{IMAGE}/ckpts/{role}" for role in DECODERS}
    args = {
        "models": models,
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0], "std": [1.0]},
        "text_cond_model": ENCODER,
    }
    text = {"pipeline.json": json.dumps({"name": "TrellisTextTo3DPipeline", "args": args}).encode()}
    image = dict(made.files)
    for role in ROLES:
        for end in ("json", "safetensors"):
            if role not in DECODERS:
                text[f"ckpts/{role}.{end}"] = image[f"ckpts/{role}.{end}"]
    encoder = {"config.json": b"{}", "model.safetensors": WEIGHTS}
    made.repositories = {TEXT: text, IMAGE: image, ENCODER: encoder}
    yield made
    made.close()


def commits(chart: Any) -> tuple[str, ...]:
    """The options that the chart itself asks for when they are missing, filled in."""
    with pytest.raises(ChartError) as refused:
        chart.render(*PRESET)
    told = str(refused.value).partition("the same weights: ")[2].partition(" (or")[0]
    asked = [word for word in told.split() if word != "--set"]
    assert len(asked) == 3
    return tuple(part for word in asked for part in ("--set", word.partition("=")[0] + f"={REVISION}"))


def test_the_gpu_preset_fetches_all_that_the_worker_needs(chart: Any, hub: Hub, tmp_path: Path) -> None:
    release = chart.render(*PRESET, *commits(chart))
    (fetch,) = release.pod("trellis")["spec"]["initContainers"]
    arguments = [part.replace("/models", str(tmp_path / "models"), 1) for part in fetch["args"]]
    done = command(tmp_path, hub, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (worker,) = release.pod("trellis")["spec"]["containers"]
    checkpoint = next(e["value"] for e in worker["env"] if e["name"] == "SN17_TEXT_CHECKPOINT")
    folder = tmp_path / checkpoint.lstrip("/")
    assert (folder / f"ckpts/{ROLES[0]}.safetensors").is_file()
    for role in DECODERS:
        assert (tmp_path / "models" / IMAGE / f"ckpts/{role}.safetensors").is_file()
    assert not (tmp_path / "models" / IMAGE / f"ckpts/{ROLES[0]}.safetensors").exists()
    assert (tmp_path / "models" / ENCODER / "model.safetensors").is_file()
    hub.requests.clear()
    assert command(tmp_path, hub, *arguments).returncode == 0
    assert hub.requests == [], "a second start of the pod asks the hub for nothing"


@pytest.mark.parametrize("gone", [IMAGE, ENCODER])
def test_a_repository_that_is_missing_fails_the_container(
    chart: Any, hub: Hub, tmp_path: Path, gone: str
) -> None:
    release = chart.render(*PRESET, *commits(chart))
    (fetch,) = release.pod("trellis")["spec"]["initContainers"]
    del hub.repositories[gone]
    arguments = [part.replace("/models", str(tmp_path / "models"), 1) for part in fetch["args"]]
    done = command(tmp_path, hub, *arguments)
    assert done.returncode == 1
    assert gone in done.stderr
