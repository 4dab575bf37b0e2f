"""The first two things that are trained: the structure VAE and the gaussian decoder."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as fn
from sn17_splats.convention import SH_C0
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.voxels import Voxels
from torch import Tensor

from sn17_train import networks
from sn17_train.budget import Budget, Log, apply_step, autocast
from sn17_train.data import RESOLUTION, Arrangement, Corpus
from sn17_train.models import Models

LOGIT_MEAN, LOGIT_STD, BETWEEN_VOXELS = 3.86, 2.78, 0.70
"""Opacity logits of a real asset: mean, spread, and the share of variance between voxels."""
SIGMA_OF_VOXEL = 0.42
STD = (0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 1.0, 1.0)
"""Spread of the structured latents: colour, place, and two of noise; their mean is zero."""


def train_structure(
    models: Models, pool: list[Arrangement], budget: Budget, batch: int, rng: np.random.Generator, log: Log
) -> None:
    """Occupancy to a latent grid and back; the latents' scale is folded into the decoder at the end."""
    grids = torch.stack([each.occupancy() for each in pool if not each.held_out])
    parameters = [*models.encoder.parameters(), *models.decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    for step in budget.train(optimizer, 2e-3):
        chosen = grids[torch.from_numpy(rng.integers(len(grids), size=batch)).to(models.device)]
        # Shifts keep the decoder from learning the few hundred scenes by heart.
        shifts = [int(s) for s in rng.integers(-3, 4, size=3)] if step % 2 else [0, 0, 0]
        x = torch.roll(chosen, shifts, dims=(1, 2, 3))[:, None].float()
        with autocast(models.device):
            mean, log_variance = models.encoder(x)
            z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            logits = models.decoder(z).float()
        share = torch.sigmoid(logits)
        dice = 1 - 2 * (share * x).sum() / (share.sum() + x.sum() + 1)
        kl = 0.5 * (mean.float() ** 2 + log_variance.float().exp() - 1 - log_variance.float()).mean()
        loss = fn.binary_cross_entropy_with_logits(logits, x) * 5 + dice + 1e-4 * kl
        apply_step(optimizer, loss, parameters)
        if step % 100 == 0:
            iou = ((logits > 0) & (x > 0)).sum() / ((logits > 0) | (x > 0)).sum()
            log({"stage": "structure", "step": step, "loss": loss.item(), "iou": float(iou)})
    with torch.no_grad():
        z = encode_structures(models, grids)
        models.latent_scale = float(z.std())
        models.decoder.input_layer.weight.mul_(models.latent_scale)


@torch.no_grad()
def encode_structures(models: Models, grids: Tensor) -> Tensor:
    """Latents [B, C, r, r, r] of occupancy [B, R, R, R], at the scale the flow learns."""
    parts = [models.encoder(part[:, None].float())[0] for part in torch.split(grids, 64)]
    return torch.cat(parts).float() / models.latent_scale


def latent_batch(corpus: Corpus, chosen: Tensor) -> tuple[Tensor, Voxels]:
    """Latents [N, 8] of the prompts `chosen` [B] and their voxels: colour and place in -1 to 1, and noise."""
    scenes = corpus.scenes(chosen)
    place = (scenes.coords[:, 1:].float() + 0.5) / RESOLUTION * 2 - 1
    noise = torch.randn(len(place), 2, device=place.device)
    latents = torch.cat([scenes.rgb * 2 - 1, place, noise], dim=1)
    return latents, Voxels(scenes.coords, RESOLUTION, len(chosen))


def gaussian_targets(latents: Tensor, decoder: GaussianDecoder) -> Tensor:
    """Raw decoder channels [N, 14 * n] that voxels with these latents [N, 8] should give."""
    cfg = decoder.config.representation_config
    n, voxels, device = cfg.num_gaussians, len(latents), latents.device
    even = (torch.arange(n, device=device) + 0.5) / n
    spread = torch.special.ndtri(even)[torch.arange(n, device=device) * 7 % n]
    mix = torch.stack([torch.roll(even, 11), torch.roll(even, 5), torch.roll(even, 23)], dim=1)
    sigma = SIGMA_OF_VOXEL / RESOLUTION * torch.exp(1.2 * (mix - 0.5))
    sigma = sigma[None] * torch.exp(0.1 * latents[:, 7])[:, None, None]
    bare = (sigma**2 - cfg.filter_kernel_size_3d**2).sqrt()
    scaling = networks.inverse_softplus(bare) - math.log(math.expm1(cfg.scaling_bias))
    angle = 2 * math.pi * mix[:, 0]
    rotation = torch.stack([angle.cos().abs(), angle.sin() * mix[:, 1], angle.sin(), mix[:, 2]], dim=1)
    rotation = fn.normalize(rotation, dim=1) - torch.tensor([1.0, 0, 0, 0], device=device)
    logits = LOGIT_MEAN + LOGIT_STD * (
        BETWEEN_VOXELS**0.5 * latents[:, 6:7] + (1 - BETWEEN_VOXELS) ** 0.5 * spread
    )
    colour = ((latents[:, :3] + 1) / 2 - 0.5) / SH_C0
    parts = [
        torch.zeros(voxels, 3 * n, device=device),
        colour[:, None].expand(-1, n, -1).flatten(1),
        scaling.flatten(1),
        (rotation / cfg.lr["_rotation"]).flatten().expand(voxels, -1),
        logits.clamp(-9.2, 15.0) - networks.logit(cfg.opacity_bias),
    ]
    return torch.cat(parts, dim=1)


def train_gaussians(
    models: Models, corpus: Corpus, budget: Budget, batch: int, rng: np.random.Generator, log: Log
) -> None:
    """Regress every gaussian from its voxel's latents; no renderer is needed."""
    decoder = models.gaussians
    with torch.no_grad():
        middle = gaussian_targets(torch.zeros(1, networks.LATENT, device=models.device), decoder)
        decoder.out_layer.bias.copy_(middle[0])
    parameters = list(decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    for step in budget.train(optimizer, 2e-3):
        latents, voxels = latent_batch(corpus, corpus.draw(rng, batch))
        target = gaussian_targets(latents, decoder)
        with autocast(models.device):
            error = (decoder(latents, voxels) - target) ** 2
        n = networks.PER_VOXEL
        offset, colour, scale, turn, opacity = torch.split(error, [3 * n, 3 * n, 3 * n, 4 * n, n], dim=1)
        loss = offset.mean() + 20 * colour.mean() + scale.mean() + 0.1 * turn.mean() + opacity.mean()
        apply_step(optimizer, loss, parameters)
        if step % 100 == 0:
            log({"stage": "gaussians", "step": step, "loss": loss.item(), "colour": colour.mean().item()})
