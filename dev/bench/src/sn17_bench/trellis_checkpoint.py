"""Checkpoints of the released shapes with random values, made on the GPU, for `trellis_gpu.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from sn17_trellis.engine.checkpoint import ModelPath, build, fill
from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.runners import EagerRunner
from sn17_trellis.engine.sampler import sample
from sn17_trellis.engine.structure import StructureDecoder, StructureFlow
from sn17_trellis.engine.weights import onto

VOXELS = 12_000
"""How many voxels the structure decoder's threshold is set to give, roughly: random weights know no shape."""

REPRESENTATION = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 32,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 9e-4,
    "scaling_bias": 4e-3,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sparse_structure_decoder": (
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 8,
            "num_res_blocks": 2,
            "num_res_blocks_middle": 2,
            "channels": [512, 128, 32],
            "use_fp16": True,
        },
    ),
    "slat_decoder_gs": (
        "ElasticSLatGaussianDecoder",
        {
            "resolution": 64,
            "model_channels": 768,
            "latent_channels": 8,
            "num_blocks": 12,
            "num_heads": 12,
            "mlp_ratio": 4,
            "attn_mode": "swin",
            "window_size": 8,
            "use_fp16": True,
            "representation_config": REPRESENTATION,
        },
    ),
}
MODELS = {
    "text": {"model_channels": 1280, "cond_channels": 768, "num_blocks": 28},
    "image": {"model_channels": 1024, "cond_channels": 1024, "num_blocks": 24},
}


def flows(kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The two flows of text-xlarge or image-large."""
    common = {
        **MODELS[kind],
        "in_channels": 8,
        "out_channels": 8,
        "num_heads": 16,
        "mlp_ratio": 4,
        "pe_mode": "ape",
        "qk_rms_norm": True,
        "use_fp16": True,
    }
    structure = {**common, "resolution": 16, "patch_size": 1}
    blocks = {"num_io_res_blocks": 2, "io_block_channels": [128]}
    if kind == "text":
        structure["qk_rms_norm_cross"] = True
        blocks = {"num_io_res_blocks": 3, "io_block_channels": [256]}
    return {
        "sparse_structure_flow_model": ("SparseStructureFlowModel", structure),
        "slat_flow_model": ("ElasticSLatFlowModel", {**common, **blocks, "resolution": 64, "patch_size": 2}),
    }


def make_checkpoints(root: Path, *, hollow: bool = False) -> tuple[Path, Path]:
    """`root/bench/text` and `root/bench/image`; the image one has the decoders of both, as released.

    Voxels lie scattered, about `VOXELS` of them, or form a `hollow` box of always 16,128: scattered ones have
    four times the coarse tokens of an object with as many.
    """
    text, image = root / "bench" / "text", root / "bench" / "image"
    for directory, kind, title in ((text, "text", "Text"), (image, "image", "Image")):
        (directory / "ckpts").mkdir(parents=True)
        networks = {**flows(kind), **(DECODERS if kind == "image" else {})}
        for role, described in networks.items():
            write_network(directory / "ckpts" / role, role, *described)
        sampler = {
            "name": "FlowEulerGuidanceIntervalSampler",
            "args": {"sigma_min": 1e-5},
            "params": {"steps": 25, "cfg_strength": 7.5, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
        }
        place = "ckpts" if kind == "image" else "bench/image/ckpts"
        models = {role: f"ckpts/{role}" for role in flows(kind)} | {
            role: f"{place}/{role}" for role in DECODERS
        }
        args = {
            "models": models,
            "sparse_structure_sampler": sampler,
            "slat_sampler": sampler,
            "slat_normalization": {"mean": [0.0] * 8, "std": [1.0] * 8},
            f"{kind}_cond_model": "condition",
        }
        (directory / "pipeline.json").write_text(
            json.dumps({"name": f"Trellis{title}To3DPipeline", "args": args})
        )
    write_clip(text / "condition")
    write_dino(image / "condition")
    if hollow:
        make_hollow(image / "ckpts" / "sparse_structure_decoder.safetensors")
    else:
        set_threshold(text, image)
    return text, image


def write_network(base: Path, role: str, name: str, args: dict[str, Any]) -> None:
    base.with_suffix(".json").write_text(json.dumps({"name": name, "args": args}))
    path = ModelPath(role, base.with_suffix(".json"), base.with_suffix(".safetensors"))
    save_file(random_state(build(path)), path.weights)


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


def write_clip(directory: Path) -> None:
    """A text model of CLIP ViT-L/14's shape with random weights, and a byte-level tokenizer."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    directory.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    (directory / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(directory / "vocab.json"), str(directory / "merges.txt"))
    tokenizer.save_pretrained(directory)
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.device("cuda"):
        model = CLIPTextModel(config)
    model.cpu().save_pretrained(directory)


def write_dino(directory: Path) -> None:
    """An image model of DINOv2 ViT-L/14's shape, with registers and random weights."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, image_size=518, patch_size=14
    )
    with torch.device("cuda"):
        model = Dinov2WithRegistersModel(config)
    model.cpu().save_pretrained(directory)


def make_hollow(decoder: Path) -> None:
    """Let a structure decoder give four sides of its cube, whatever its latent grid is.

    The last layer sees the same feature everywhere and sums it over 3 x 3 neighbours: fewer at the sides.
    """
    state = load_file(decoder)
    state["out_layer.0.weight"].zero_()
    state["out_layer.0.bias"].fill_(1.0)
    weight = state["out_layer.2.weight"].zero_()
    weight[0, :, 1] = -1 / (9 * weight.shape[1])
    state["out_layer.2.bias"].fill_(7.5 / 9 * float(torch.nn.functional.silu(torch.tensor(1.0))))
    save_file(state, decoder)


def set_threshold(text: Path, image: Path) -> None:
    """Shift the structure decoder's last bias so that about `VOXELS` voxels are occupied."""

    def network(directory: Path, role: str) -> torch.nn.Module:
        base = directory / "ckpts" / role
        path = ModelPath(role, base.with_suffix(".json"), base.with_suffix(".safetensors"))
        return fill(build(path), path, onto(torch.device("cuda"), None))

    flow, decoder = (
        network(text, "sparse_structure_flow_model"),
        network(image, "sparse_structure_decoder"),
    )
    assert isinstance(flow, StructureFlow)
    assert isinstance(decoder, StructureDecoder)
    generator = torch.Generator().manual_seed(1)
    cond, uncond = (torch.randn(1, 77, 768, generator=generator).cuda() for _ in range(2))
    noise = torch.randn(1, 8, 16, 16, 16, generator=generator).cuda()
    params = SamplerParams(steps=4)
    logits = decoder(sample(EagerRunner().structure(flow, params, cond, uncond), noise, params)).flatten()
    threshold = logits.topk(VOXELS).values[-1]
    decoder.out_layer[2].get_parameter("bias").sub_(threshold)
    save_file(
        {key: value.cpu().contiguous() for key, value in decoder.state_dict().items()},
        image / "ckpts" / "sparse_structure_decoder.safetensors",
    )
