"""The four things that are trained, in order: structure VAE, gaussian decoder, then text and both flows."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as fn
from sn17_trellis.engine.gaussians import GaussianDecoder
from sn17_trellis.engine.latents import LatentFlow
from sn17_trellis.engine.structure import StructureDecoder, StructureFlow
from sn17_trellis.engine.voxels import Voxels
from torch import Tensor, nn

from sn17_train import networks
from sn17_train.data import RESOLUTION, Arrangement, draw

LOGIT_MEAN, LOGIT_STD, BETWEEN_VOXELS = 3.86, 2.78, 0.70
"""Opacity logits of a real asset: mean, spread, and the share of variance between voxels."""
SIGMA_OF_VOXEL = 0.42
SH_C0 = 0.28209479177387814
STD = (0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 1.0, 1.0)
"""Spread of the structured latents: colour, place, and two of noise; their mean is zero."""

Log = Callable[[dict[str, Any]], None]


@dataclass(slots=True, eq=False)
class Models:
    """Everything that is trained."""

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
    done: dict[str, int] = field(default_factory=dict)

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
        for module in models.modules().values():
            module.to(device)
        return models

    def modules(self) -> dict[str, nn.Module]:
        """By name, for saving."""
        return {
            "encoder": self.encoder,
            "decoder": self.decoder,
            "flow": self.flow,
            "latents": self.latents,
            "gaussians": self.gaussians,
            "text": self.text,
        }

    def encode_text(self, prompts: list[str]) -> Tensor:
        """Hidden states [B, tokens, width], as the engine computes them."""
        tokens = self.tokenizer(
            prompts, max_length=networks.TOKENS, padding="max_length", truncation=True, return_tensors="pt"
        )
        states: Tensor = self.text(input_ids=tokens["input_ids"].to(self.device)).last_hidden_state
        return states


@dataclass(slots=True)
class Budget:
    """Steps at most and seconds at most; whichever share is further along drives the schedule."""

    steps: int
    seconds: float
    _start: float = field(default_factory=time.monotonic)

    def progress(self, step: int) -> float:
        """From 0 to 1."""
        return min(1.0, max(step / self.steps, (time.monotonic() - self._start) / self.seconds))


def rate(progress: float, peak: float) -> float:
    """Learning rate: short warm-up, then straight down to 2 %."""
    return peak * min(1.0, progress / 0.03 + 0.02, 0.02 + 0.98 * (1 - progress) / 0.97)


def _steps(
    budget: Budget, optimizer: torch.optim.Optimizer, peak: float, start: int
) -> Iterator[tuple[int, float]]:
    step = start
    while (progress := budget.progress(step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(progress, peak)
        yield step, progress
        step += 1


def autocast(device: torch.device) -> Any:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def train_structure(
    models: Models, pool: list[Arrangement], budget: Budget, batch: int, rng: np.random.Generator, log: Log
) -> None:
    """Occupancy to a latent grid and back; the latents' scale is folded into the decoder at the end."""
    grids = torch.stack([each.occupancy() for each in pool if not each.held_out])
    parameters = [*models.encoder.parameters(), *models.decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    for step, _ in _steps(budget, optimizer, 2e-3, 0):
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
    parts = [models.encoder(part[:, None].float())[0] for part in grids.split(64)]
    return torch.cat(parts).float() / models.latent_scale


def structured_latents(one: Arrangement, colour: int, base_colour: int, noise: Tensor) -> Tensor:
    """What a voxel's latents are: colour and place in -1 to 1, and `noise` [N, 2]; [N, 8]."""
    place = (one.coords.float() + 0.5) / RESOLUTION * 2 - 1
    return torch.cat([one.rgb(colour, base_colour) * 2 - 1, place, noise], dim=1)


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
    models: Models, pool: list[Arrangement], budget: Budget, batch: int, rng: np.random.Generator, log: Log
) -> None:
    """Regress every gaussian from its voxel's latents; no renderer is needed."""
    decoder = models.gaussians
    with torch.no_grad():
        middle = gaussian_targets(torch.zeros(1, networks.LATENT, device=models.device), decoder)
        decoder.out_layer.bias.copy_(middle[0])
    parameters = list(decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    for step, _ in _steps(budget, optimizer, 2e-3, 0):
        latents, voxels, _ = latent_batch(models, pool, batch, rng)
        target = gaussian_targets(latents, decoder)
        with autocast(models.device):
            error = (decoder(latents, voxels) - target) ** 2
        n = networks.PER_VOXEL
        offset, colour, scale, turn, opacity = torch.split(error, [3 * n, 3 * n, 3 * n, 4 * n, n], dim=1)
        loss = offset.mean() + 20 * colour.mean() + scale.mean() + 0.1 * turn.mean() + opacity.mean()
        apply_step(optimizer, loss, parameters)
        if step % 100 == 0:
            log({"stage": "gaussians", "step": step, "loss": loss.item(), "colour": colour.mean().item()})


def latent_batch(
    models: Models, pool: list[Arrangement], batch: int, rng: np.random.Generator
) -> tuple[Tensor, Voxels, list[str]]:
    """Latents [N, 8] of several coloured scenes, their voxels, their prompts."""
    rows, coords, prompts = [], [], []
    for index in range(batch):
        one, colour, base = draw(rng, pool, unseen=False)
        noise = torch.randn(len(one.coords), 2, device=models.device)
        rows.append(structured_latents(one, colour, base, noise))
        coords.append(fn.pad(one.coords.int(), (1, 0), value=index))
        prompts.append(one.prompt(colour, base))
    return torch.cat(rows), Voxels(torch.cat(coords), RESOLUTION, batch), prompts


def train_flows(
    models: Models,
    pool: list[Arrangement],
    budget: Budget,
    batches: tuple[int, int],
    rng: np.random.Generator,
    log: Log,
) -> dict[str, nn.Module]:
    """Both flows and the text model, which has to learn from both: colours mean nothing to structure.

    Returns the exponential averages, by name.
    """
    trained = {"flow": models.flow, "latents": models.latents, "text": models.text}
    averages = {name: copy.deepcopy(module).requires_grad_(False) for name, module in trained.items()}
    parameters = [p for module in trained.values() for p in module.parameters()]
    own, averaged = list(parameters), [p for module in averages.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01, betas=(0.9, 0.98))
    targets = encode_structures(models, torch.stack([each.occupancy() for each in pool]))
    place = {id(each): index for index, each in enumerate(pool)}
    std = torch.tensor(STD, device=models.device)
    for step, _ in _steps(budget, optimizer, 8e-4, 0):
        drawn = [draw(rng, pool, unseen=False) for _ in range(batches[0])]
        prompts = [one.prompt(colour, base) for one, colour, base in drawn]
        x = targets[[place[id(one)] for one, _, _ in drawn]]
        rows, voxels, more = latent_batch(models, pool, batches[1], rng)
        kept = [prompt if rng.random() > 0.1 else "" for prompt in (*prompts, *more)]
        with autocast(models.device):
            cond = models.encode_text(kept)
            structure = flow_loss(x, lambda xt, t, c=cond, n=len(x): models.flow(xt, t, c[:n]), len(x))
            latents = flow_loss(
                rows / std,
                lambda xt, t, c=cond, v=voxels, n=len(x): models.latents(xt[None], t, c[n:], v)[0],
                batches[1],
                voxels.batch,
            )
        loss = structure + latents
        apply_step(optimizer, loss, parameters)
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, own, 1 - decay)
        if step % 100 == 0:
            values = {"structure": structure.item(), "latents": latents.item()}
            log({"stage": "flows", "step": step, **values, "progress": budget.progress(step)})
    models.done["flows"] = step + 1
    return averages


def flow_loss(
    x: Tensor, velocity: Callable[[Tensor, Tensor], Tensor], objects: int, group: Tensor | None = None
) -> Tensor:
    """Mean squared error of the velocity at a random time per object, more often late (noisy) ones.

    A third of the objects of a structured-latent batch start from noise alone: thousands of voxels share a
    colour, so it shows through nearly any noise, and only there is it learned from the words.
    """
    t = torch.sigmoid(torch.randn(objects, device=x.device) + 1)
    if group is not None:
        t = torch.where(torch.rand_like(t) < 1 / 3, 1.0, t)
    each = t.view(-1, *[1] * (x.dim() - 1)) if group is None else t[group][:, None]
    noise = torch.randn_like(x)
    predicted = velocity((1 - each) * x + each * noise, 1000 * t)
    return fn.mse_loss(predicted.float(), noise - x)


def apply_step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
