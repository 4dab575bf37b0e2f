"""Everything that is trained, and its state between chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.structure import StructureDecoder, StructureFlow
from torch import Tensor, nn

from sn17_train import networks

STAGES = ("structure", "gaussians", "flows")


@dataclass(slots=True, eq=False)
class Models:
    """The networks; `latent_scale` is the spread of the structure encoder's means."""

    size: str
    device: torch.device
    encoder: networks.StructureEncoder
    decoder: StructureDecoder
    flow: StructureFlow
    latents: LatentFlow
    gaussians: GaussianDecoder
    text: Any
    tokenizer: Any
    latent_scale: float = 1.0

    @classmethod
    def make(cls, size: str, device: torch.device, seed: int) -> Models:
        """Fresh networks."""
        torch.manual_seed(seed)
        flow = StructureFlow(networks.config_of("sparse_structure_flow_model", size))
        latents = LatentFlow(networks.config_of("slat_flow_model", size))
        gaussians = GaussianDecoder(networks.config_of("slat_decoder_gs", size))
        for module in (flow, latents, gaussians):
            networks.initialise(module)
        gaussians.offset_perturbation.copy_(networks.perturbation(networks.PER_VOXEL))
        models = cls(
            size,
            device,
            networks.StructureEncoder(8 if size == "smoke" else 32),
            StructureDecoder(networks.config_of("sparse_structure_decoder", size)),
            flow,
            latents,
            gaussians,
            networks.make_text_model(1 if size == "smoke" else 3),
            networks.make_tokenizer(),
        )
        for stage in STAGES:
            for trained in models.of_stage(stage).values():
                trained.to(device)
        return models

    def of_stage(self, stage: str) -> dict[str, nn.Module]:
        """The networks that a stage trains, by name."""
        stages: dict[str, dict[str, nn.Module]] = {
            "structure": {"encoder": self.encoder, "decoder": self.decoder},
            "gaussians": {"gaussians": self.gaussians},
            "flows": {"flow": self.flow, "latents": self.latents, "text": self.text},
        }
        return stages[stage]

    def parameters(self) -> dict[str, int]:
        """How many weights each network has."""
        modules = {name: module for stage in STAGES for name, module in self.of_stage(stage).items()}
        return {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}

    def tokens(self, prompts: list[str]) -> Tensor:
        """Token ids [B, tokens], as the engine makes them."""
        out: Tensor = self.tokenizer(
            prompts, max_length=networks.TOKENS, padding="max_length", truncation=True, return_tensors="pt"
        )["input_ids"]
        return out.to(self.device)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Hidden states [B, tokens, width], as the engine computes them."""
        states: Tensor = self.text(input_ids=tokens).last_hidden_state
        return states

    def save(self, stage: str, directory: Path | None) -> None:
        """Keep a finished stage."""
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            modules = {name: module.state_dict() for name, module in self.of_stage(stage).items()}
            torch.save({"modules": modules, "scale": self.latent_scale}, directory / f"{stage}.pt")

    def load(self, stage: str, directory: Path | None) -> bool:
        """Take a finished stage from an earlier chunk, if there is one."""
        if directory is None or not (path := directory / f"{stage}.pt").exists():
            return False
        saved = torch.load(path, map_location=self.device, weights_only=True)
        for name, module in self.of_stage(stage).items():
            module.load_state_dict(saved["modules"][name])
        self.latent_scale = float(saved["scale"])
        return True
