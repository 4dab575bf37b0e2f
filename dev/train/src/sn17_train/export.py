"""The trained networks as an official-style checkpoint directory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sn17_files import write_atomically
from torch import nn

from sn17_train import networks
from sn17_train.models import Models
from sn17_train.stages import STD


def export(models: Models, averages: dict[str, nn.Module], directory: Path) -> None:
    """Write `pipeline.json`, `ckpts/` and the text model; nothing in it is special to this project."""
    chosen = {
        "sparse_structure_flow_model": averages["flow"],
        "sparse_structure_decoder": models.decoder,
        "slat_flow_model": averages["latents"],
        "slat_decoder_gs": models.gaussians,
    }
    for role, module in chosen.items():
        networks.save_network(module, directory, role, models.size)
    sampler = {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-5},
        "params": {"steps": 25, "cfg_strength": 3.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
    }
    pipeline = {
        "name": "TrellisTextTo3DPipeline",
        "args": {
            "models": {role: f"ckpts/{role}" for role in chosen},
            "sparse_structure_sampler": sampler,
            "slat_sampler": sampler,
            "slat_normalization": {"mean": [0.0] * networks.LATENT, "std": list(STD)},
            "text_cond_model": "text",
        },
    }
    write_atomically(directory / "pipeline.json", json.dumps(pipeline, indent=1).encode() + b"\n")
    text = averages["text"]
    text.to("cpu", torch.float16).save_pretrained(directory / "text")  # type: ignore[operator]
    models.tokenizer.save_pretrained(directory / "text")
