from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from safetensors.torch import save_file  # noqa: E402
from sn17_trellis.engine.checkpoint import (  # noqa: E402
    ModelPath,
    Repositories,
    build,
    fill,
    locate,
    read_pipeline,
)
from sn17_trellis.engine.config import ROLES  # noqa: E402
from sn17_trellis.engine.weights import onto  # noqa: E402

ROOT = Path(__file__).parents[4]
OWN = Path(__file__).parent / "golden"


def golden_sets() -> list[Path]:
    """Every golden set: those of the shared folder, where it lies, and our own small ones."""
    shared = Path(os.environ.get("SN17_GOLDEN", ROOT.parent / "shared" / "golden" / "trellis"))
    return [path.parent for folder in (shared, OWN) for path in sorted(folder.glob("*/golden.npz"))]


@pytest.fixture(scope="module", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Golden:
    """A golden set with its networks in float32."""

    directory: Path
    arrays: dict[str, np.ndarray[Any, Any]]
    meta: dict[str, Any]
    flow: Any
    decoder: Any
    latent_flow: Any
    gaussian_decoder: Any
    pipeline: Any

    def tensor(self, name: str) -> Any:
        return torch.from_numpy(self.arrays[name])

    def check(self, name: str, value: Any, expected: Any = None, limits: Any = None) -> None:
        """Compare with the array of that name, by the set's own limits."""
        expected = self.arrays[name] if expected is None else expected
        got = np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value)
        assert got.size == np.size(expected), name
        got = got.reshape(np.shape(expected))
        rel_limit, max_limit = limits or self.meta["tolerance"][name]
        if rel_limit == 0:
            np.testing.assert_array_equal(got, expected, err_msg=name)
            return
        difference = got.astype(np.float64) - expected
        rms = np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
        assert np.sqrt(np.mean(difference**2)) <= rel_limit * rms, name
        assert np.abs(difference).max() <= max_limit * rms, name


@pytest.fixture(
    scope="module", params=golden_sets() or [None], ids=lambda path: path.name if path else "none"
)
def golden(request: pytest.FixtureRequest) -> Golden:
    if request.param is None:
        pytest.skip("no golden arrays here: set SN17_GOLDEN to their folder")
    directory: Path = request.param
    pipeline = read_pipeline(directory)
    networks = []
    for role in ROLES:
        path = locate(directory, role, pipeline.args.models[role], Repositories())
        networks.append(fill(build(path), path, onto(torch.device("cpu"), torch.float32)))
    with np.load(directory / "golden.npz") as stored:
        arrays = dict(stored)
    meta = json.loads((directory / "golden.json").read_text())
    return Golden(directory, arrays, meta, *networks, pipeline)


WIDTH = 32
TORSO = {"model_channels": WIDTH, "num_blocks": 1, "num_heads": 2, "use_fp16": True}
FLOW = {**TORSO, "in_channels": 8, "out_channels": 8, "cond_channels": WIDTH, "qk_rms_norm": True}
SHAPE = {"out_channels": 1, "latent_channels": 8, "num_res_blocks": 1, "channels": [8, 8], "use_fp16": True}
LATENTS = {"resolution": 8, "patch_size": 2, "num_io_res_blocks": 2, "io_block_channels": [16]}
GAUSSIANS = {
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
DECODER = {"resolution": 8, "latent_channels": 8, "window_size": 4, "representation_config": GAUSSIANS}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    ROLES[0]: ("SparseStructureFlowModel", {**FLOW, "resolution": 4}),
    ROLES[1]: ("SparseStructureDecoder", SHAPE),
    ROLES[2]: ("ElasticSLatFlowModel", {**FLOW, **LATENTS}),
    ROLES[3]: ("ElasticSLatGaussianDecoder", {**TORSO, **DECODER}),
}


def _write_checkpoint(directory: Path, kind: str, *, occupied: bool = True) -> None:
    """Networks of random weights; every voxel is occupied, or none."""
    draws = torch.Generator().manual_seed(1)
    (directory / "ckpts").mkdir(parents=True)
    for role, (name, args) in NETWORKS.items():
        base = directory / "ckpts" / role
        base.with_suffix(".json").write_text(json.dumps({"name": name, "args": args}))
        state = build(ModelPath(role, base.with_suffix(".json"), base)).state_dict()
        weights = {key: 0.1 * torch.randn(value.shape, generator=draws) for key, value in state.items()}
        if role == ROLES[1]:
            last = max(key for key in weights if key.startswith("out_layer") and key.endswith("bias"))
            weights[last] += 100 if occupied else -100
        save_file(weights, base.with_suffix(".safetensors"))
    sampler = {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": 1e-5}}
    args = {
        "models": {role: f"ckpts/{role}" for role in ROLES},
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
        f"{kind.lower()}_cond_model": "condition",
    }
    (directory / "pipeline.json").write_text(json.dumps({"name": f"Trellis{kind}To3DPipeline", "args": args}))
    (write_clip if kind == "Text" else write_dino)(directory / "condition")


def write_clip(directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    words = ["<end>", "<unknown>", "a", "red", "blue", "cube"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<end>", unk_token="<unknown>"
    ).save_pretrained(directory)
    CLIPTextModel(
        CLIPTextConfig(
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            vocab_size=len(words),
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            eos_token_id=0,
            bos_token_id=0,
            pad_token_id=0,
        )
    ).save_pretrained(directory)


def write_dino(directory: Path) -> None:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, image_size=518, patch_size=14
    )
    Dinov2WithRegistersModel(config).save_pretrained(directory)


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., None]:
    """Writes a tiny checkpoint of random weights: (directory, "Text" or "Image", occupied=True)."""
    return _write_checkpoint
