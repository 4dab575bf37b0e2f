"""Training that starts from an exported checkpoint instead of random weights.

An export holds no structure encoder, and the flows need a latent of every scene. So each scene is sampled
with the checkpoint's own flow, and the sample is then moved until the decoder gives that very scene: it stays
where the flow already ends.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as fn
from sn17_trellis.engine.checkpoint import Repositories, read_pipeline
from sn17_trellis.engine.conditioning import conditioner_directory
from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.pipeline import load_pipeline
from sn17_trellis.engine.runners import EagerRunner
from sn17_trellis.engine.sampler import sample
from torch import Tensor

from sn17_train.budget import Log
from sn17_train.data import Arrangement
from sn17_train.models import Models

PARAMS = SamplerParams(steps=25, cfg_strength=3.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)
FIT_RATE = 0.02
AT_ONCE = 108


def take(models: Models, directory: Path) -> None:
    """Weights of every network of a text checkpoint.

    Raises CheckpointError, and ValueError where its sizes are others.
    """
    pipeline = load_pipeline(directory, torch.device("cpu"), dtype=torch.float32)
    text = conditioner_directory(directory, read_pipeline(directory), Repositories())
    pairs = (
        (models.flow, pipeline.flow),
        (models.decoder, pipeline.decoder),
        (models.latents, pipeline.latent_flow),
        (models.gaussians, pipeline.gaussian_decoder),
        (models.text, type(models.text).from_pretrained(text, dtype=torch.float32, local_files_only=True)),
    )
    for ours, theirs in pairs:
        try:
            ours.load_state_dict(theirs.state_dict())
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{directory} has networks of other sizes: {reason}") from error


@torch.no_grad()
def sampled_structures(models: Models, pool: list[Arrangement]) -> Tensor:
    """One sample of the flow [A, C, r, r, r] for each arrangement, in the first colours."""
    parts = []
    config = models.flow.config
    for start in range(0, len(pool), AT_ONCE):
        some = pool[start : start + AT_ONCE]
        cond = models.encode_text(models.tokens([each.prompt(0, 1) for each in some])).float()
        uncond = models.encode_text(models.tokens([""])).float().expand_as(cond)
        shape = (len(some), config.in_channels, *[config.resolution] * 3)
        velocity = EagerRunner().structure(models.flow, PARAMS, cond, uncond)
        parts.append(sample(velocity, torch.randn(shape, device=models.device), PARAMS))
    return torch.cat(parts)


def fitted_structures(models: Models, pool: list[Arrangement], steps: int, log: Log) -> Tensor:
    """Latents [A, C, r, r, r] that the decoder turns into the arrangements, near what the flow samples."""
    grids = torch.stack([each.occupancy() for each in pool])
    parts, hits, union = [], 0.0, 0.0
    for z, wanted in zip(
        torch.split(sampled_structures(models, pool), AT_ONCE), torch.split(grids, AT_ONCE), strict=True
    ):
        x, z = wanted[:, None].float(), z.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=FIT_RATE)
        for _ in range(steps):
            loss = fn.binary_cross_entropy_with_logits(models.decoder(z).float(), x, reduction="sum")
            (z.grad,) = torch.autograd.grad(loss, [z])
            optimizer.step()
        with torch.no_grad():
            occupied = models.decoder(z).float()[:, 0] > 0
        hits += float((occupied & wanted).sum())
        union += float((occupied | wanted).sum())
        parts.append(z.detach())
    log({"stage": "fit", "iou": hits / union})
    return torch.cat(parts)
