"""Sizes of the small checkpoint, and what training needs beside the engine's networks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import save_file
from sn17_files import write_atomically
from sn17_scene import BASES, COLOURS, COUNTS, SHAPES, SIZES
from sn17_trellis.engine.config import (
    GaussianDecoderConfig,
    LatentFlowConfig,
    StructureDecoderConfig,
    StructureFlowConfig,
)
from torch import Tensor, nn

from sn17_train.data import RESOLUTION

LATENT = 8
TOKENS = 16
WIDTH = 192
PER_VOXEL = 32
START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"

_FLOW = {
    "in_channels": LATENT,
    "out_channels": LATENT,
    "cond_channels": WIDTH,
    "mlp_ratio": 4,
    "pe_mode": "ape",
    "qk_rms_norm": True,
    "use_fp16": True,
}
_SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "flow": {"resolution": 8, "model_channels": 192, "num_blocks": 8, "num_heads": 6},
        "decoder": {"channels": [64, 32, 16], "num_res_blocks": 2, "num_res_blocks_middle": 2},
        "latents": {"model_channels": 128, "num_blocks": 4, "num_heads": 4, "io_block_channels": [32]},
        "gaussians": {"model_channels": 64, "num_blocks": 2, "num_heads": 2},
    },
    "smoke": {
        "flow": {"resolution": 8, "model_channels": 24, "num_blocks": 1, "num_heads": 2},
        "decoder": {"channels": [8, 8, 8], "num_res_blocks": 1, "num_res_blocks_middle": 1},
        "latents": {"model_channels": 24, "num_blocks": 1, "num_heads": 2, "io_block_channels": [8]},
        "gaussians": {"model_channels": 24, "num_blocks": 1, "num_heads": 2},
    },
}


def arguments(size: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Class name and arguments of each network, by its role in `pipeline.json`."""
    of = _SIZES[size]
    representation = {
        "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
        "perturb_offset": True,
        "voxel_size": 1.5,
        "num_gaussians": PER_VOXEL,
        "2d_filter_kernel_size": 0.1,
        "3d_filter_kernel_size": 9e-4,
        "scaling_bias": 4e-3,
        "opacity_bias": 0.1,
        "scaling_activation": "softplus",
    }
    return {
        "sparse_structure_flow_model": (
            "SparseStructureFlowModel",
            {**_FLOW, "patch_size": 1, "qk_rms_norm_cross": True, **of["flow"]},
        ),
        "sparse_structure_decoder": (
            "SparseStructureDecoder",
            {"out_channels": 1, "latent_channels": LATENT, "use_fp16": True, **of["decoder"]},
        ),
        "slat_flow_model": (
            "ElasticSLatFlowModel",
            {**_FLOW, "resolution": RESOLUTION, "patch_size": 2, "num_io_res_blocks": 2, **of["latents"]},
        ),
        "slat_decoder_gs": (
            "ElasticSLatGaussianDecoder",
            {
                "resolution": RESOLUTION,
                "latent_channels": LATENT,
                "mlp_ratio": 4,
                "attn_mode": "swin",
                "window_size": 8,
                "use_fp16": True,
                "representation_config": representation,
                **of["gaussians"],
            },
        ),
    }


def config_of(role: str, size: str) -> Any:
    """The validated configuration of one role."""
    types: dict[str, type[BaseModel]] = {
        "sparse_structure_flow_model": StructureFlowConfig,
        "sparse_structure_decoder": StructureDecoderConfig,
        "slat_flow_model": LatentFlowConfig,
        "slat_decoder_gs": GaussianDecoderConfig,
    }
    return types[role].model_validate(arguments(size)[role][1])


class StructureEncoder(nn.Module):
    """Occupancy [B, 1, R, R, R] to mean and log variance of the latent grid; needed in training only."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(1, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.SiLU(),
            nn.Conv3d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 4 * width),
            nn.SiLU(),
            nn.Conv3d(4 * width, 2 * LATENT, 3, padding=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.layers(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 4)


def vocabulary() -> dict[str, int]:
    """Every word of the grammar's canonical prompts, after the special ones."""
    words = [*COUNTS, "an", "on", *(size for size in SIZES if size), *COLOURS, *BASES, *SHAPES]
    words += [shape.plural for shape in SHAPES.values()]
    return {word: index for index, word in enumerate([START, END, UNKNOWN, *dict.fromkeys(words)])}


def make_tokenizer() -> Any:
    """A word-level tokenizer of the kind `transformers` reads; padding is the end token, as CLIP's is."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = vocabulary()
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, words[START]), (END, words[END])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        model_max_length=TOKENS,
    )


def make_text_model(layers: int = 3) -> Any:
    """A small text model of CLIP's kind."""
    from transformers import CLIPTextConfig, CLIPTextModel

    words = vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=words[START],
        eos_token_id=words[END],
        pad_token_id=words[END],
    )
    return CLIPTextModel(config)


def perturbation(count: int) -> Tensor:
    """Even start offsets [count, 3] of a voxel's gaussians: a Hammersley set, before tanh."""

    def radical_inverse(index: int, base: int) -> float:
        value, scale = 0.0, 1.0 / base
        while index:
            value += scale * (index % base)
            index, scale = index // base, scale / base
        return value

    points = [(i / count, radical_inverse(i, 2), radical_inverse(i, 3)) for i in range(count)]
    return torch.atanh((2 * torch.tensor(points) - 1) / 1.5)


_FULL = ("t_embedder", "input_layer", "out_layer", "pos_emb", "norm", "offset_perturbation")


def save_network(module: nn.Module, directory: Path, role: str, size: str) -> None:
    """Write `.json` and `.safetensors` with the dtype split of released files."""
    name, args = arguments(size)[role]
    base = directory / "ckpts" / role
    base.parent.mkdir(parents=True, exist_ok=True)
    described = json.dumps({"name": name, "args": args}, indent=1)
    write_atomically(base.with_suffix(".json"), described.encode() + b"\n")
    state = {
        key: value.detach()
        .to("cpu", torch.float32 if any(part in key for part in _FULL) else torch.float16)
        .contiguous()
        for key, value in module.state_dict().items()
    }
    save_file(state, base.with_suffix(".safetensors"))


def initialise(module: nn.Module) -> None:
    """Transformer start values: small weights, and no modulation and no output until learned."""
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
            if "adaLN_modulation" in name or "emb_layers" in name or name == "out_layer":
                nn.init.zeros_(part.weight)
        if name.endswith("conv2"):
            nn.init.zeros_(part.get_parameter("conv.weight"))


def inverse_softplus(value: Tensor) -> Tensor:
    """x with softplus(x) = value."""
    return value + torch.log(-torch.expm1(-value))


def logit(p: float) -> float:
    """Inverse of the sigmoid."""
    return math.log(p / (1 - p))
