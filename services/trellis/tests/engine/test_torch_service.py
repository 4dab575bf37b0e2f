"""The torch backend behind the real service: text, image and empty structures, on random weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from safetensors.torch import save_file  # noqa: E402
from sn17_service import Service  # noqa: E402
from sn17_service.testing import ServiceThread  # noqa: E402
from sn17_splats import read_ply  # noqa: E402
from sn17_trellis.engine.checkpoint import ROLES, ModelPath, build  # noqa: E402
from sn17_trellis.http import build_app  # noqa: E402
from sn17_trellis.serve import connect  # noqa: E402
from sn17_trellis.settings import WorkerSettings  # noqa: E402
from sn17_trellis.torch_backend import create_backend  # noqa: E402
from sn17_trellis.worker import Worker  # noqa: E402

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
WISHES = {"structure_steps": "3", "latent_steps": "2"}


def write_checkpoint(directory: Path, kind: str, *, occupied: bool = True) -> None:
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


@pytest.fixture
def new_service(tmp_path: Path) -> Iterator[Callable[..., ServiceThread]]:
    made: list[ServiceThread] = []

    def make(**checkpoints: Path) -> ServiceThread:
        (tmp_path / "token").write_text("a token")
        settings = WorkerSettings(
            port=0,
            ops_port=0,
            admin_token_file=tmp_path / "token",
            spool_dir=tmp_path / "spool",
            worker_name="torch-1",
            device="cpu",
            preset="fast",
            **checkpoints,
        )
        service = Service("trellis", "0", settings)
        worker = Worker(service, settings, create_backend(settings), tick_seconds=0.02)
        connect(service, settings, worker)
        made.append(ServiceThread(service, build_app(service, settings, worker), token="a token"))
        made[-1].start()
        return made[-1]

    yield make
    for instance in made:
        if instance.exit_code is None:
            instance.stop()


def picture() -> bytes:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (200, 30, 30, 255)
    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(out, "PNG")
    return out.getvalue()


def test_text_and_image_through_the_service(tmp_path: Path, new_service: Any, wait_until: Any) -> None:
    write_checkpoint(tmp_path / "text", "Text")
    write_checkpoint(tmp_path / "image", "Image")
    live = new_service(text_checkpoint=tmp_path / "text", image_checkpoint=tmp_path / "image")
    wait_until(lambda: live.data("GET", "/v1/worker").json()["state"] == "ready")
    assert live.data("GET", "/v1/worker").json()["models"] == ["text", "image"]
    text = {"prompt": "a red cube", "seed": "5", **WISHES}
    files = {"prompt_image_file": ("a.png", picture())}
    answers = [
        live.data("POST", "/generate", data=text),
        live.data("POST", "/generate", data={"seed": "5", **WISHES}, files=files),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        splats = read_ply(answer.content)
        assert len(splats) == 8**3 * 32 == int(answer.headers["SN17-Gaussians"])
        assert np.isfinite(splats.positions).all()
    assert answers[0].content != answers[1].content
    assert live.data("POST", "/generate", data=text).content == answers[0].content
    refused = live.data("POST", "/generate", data={**text, "preset": "slow"})
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_request")


def test_an_empty_structure_leaves_the_worker_usable(
    tmp_path: Path, new_service: Any, wait_until: Any
) -> None:
    write_checkpoint(tmp_path / "empty", "Text", occupied=False)
    live = new_service(text_checkpoint=tmp_path / "empty")
    wait_until(lambda: live.data("GET", "/v1/worker").json()["state"] != "warming")
    for _ in range(2):
        answer = live.data("POST", "/generate", data={"prompt": "a red cube", **WISHES})
        assert (answer.status_code, answer.json()["code"]) == (422, "empty_structure")
