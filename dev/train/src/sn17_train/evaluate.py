"""How good a checkpoint is on prompts it was not trained on, many objects at a time.

The networks are those that the ordinary loader reads from the exported directory; only the loop around them
is batched, which the engine's worker, with one object at a time, does not need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sn17_splats.convention import SH_C0
from sn17_trellis.engine.conditioning import TextConditioner
from sn17_trellis.engine.config import SamplerParams
from sn17_trellis.engine.pipeline import Pipeline
from sn17_trellis.engine.runners import EagerRunner
from sn17_trellis.engine.sampler import sample
from sn17_trellis.engine.voxels import Voxels
from torch import Tensor

from sn17_train.data import Arrangement, draw

COLOUR_REACH = 0.175
"""Half the distance of the grammar's two nearest colours: nearer than this is the right colour."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A held-out prompt and what it should become."""

    prompt: str
    arrangement: Arrangement
    colour: int
    base_colour: int


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """`iou` of the occupied voxels, `control` against another prompt's, `colour` share of right gaussians."""

    case: Case
    iou: float
    control: float
    colour: float
    gaussians: int
    table: NDArray[np.float32]


def held_out_cases(pool: list[Arrangement], count: int, seed: int = 17) -> list[Case]:
    """A fixed list of prompts that training never sees."""
    rng = np.random.default_rng(seed)
    found: dict[str, Case] = {}
    while len(found) < count:
        one, colour, base = draw(rng, pool, unseen=True)
        prompt = one.prompt(colour, base)
        found.setdefault(prompt, Case(prompt, one, colour, base))
    return list(found.values())


@torch.inference_mode()
def evaluate(
    pipeline: Pipeline,
    cases: list[Case],
    structure: SamplerParams,
    latents: SamplerParams,
    *,
    seed: int = 0,
    batch: int = 32,
) -> Iterator[Result]:
    """Sample every case; `seed` + its index is each case's own seed, as a worker would use it."""
    others = [case.arrangement.occupancy() for case in [*cases[1:], cases[0]]]
    for start in range(0, len(cases), batch):
        part = cases[start : start + batch]
        yield from _evaluate(pipeline, part, structure, latents, seed + start, others[start : start + batch])


def _evaluate(
    pipeline: Pipeline,
    cases: list[Case],
    structure: SamplerParams,
    latents: SamplerParams,
    seed: int,
    others: list[Tensor],
) -> Iterator[Result]:
    conditioner, device = pipeline.conditioner, pipeline.device
    assert isinstance(conditioner, TextConditioner)
    pairs = [conditioner.condition(case.prompt) for case in cases]
    cond = torch.cat([pair[0] for pair in pairs])
    neg = pairs[0][1].expand_as(cond)
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(cases))]
    noise = torch.cat([pipeline.structure_noise(generator) for generator in generators])
    runner = EagerRunner()
    velocity = runner.structure(pipeline.flow, structure, cond, neg)
    occupied = pipeline.decoder(sample(velocity, noise, structure))[:, 0] > 0
    filled = occupied.clone()
    filled[~occupied.flatten(1).any(1), 0, 0, 0] = True
    voxels = Voxels(torch.argwhere(filled).int(), filled.shape[-1], len(cases))
    counts = torch.bincount(voxels.batch, minlength=len(cases)).tolist()
    channels = pipeline.latent_flow.config.in_channels
    drawn = [torch.randn(n, channels, generator=g) for n, g in zip(counts, generators, strict=True)]
    velocity = runner.latents(pipeline.latent_flow, latents, cond, neg, voxels)
    slat = sample(velocity, torch.cat(drawn).to(device), latents)
    slat = slat * slat.new_tensor(pipeline.normalization.std) + slat.new_tensor(pipeline.normalization.mean)
    tables = pipeline.decode_gaussians(slat, voxels).cpu().numpy()
    per = pipeline.gaussian_decoder.config.representation_config.num_gaussians
    stop = 0
    for index, (case, count) in enumerate(zip(cases, counts, strict=True)):
        first, stop = stop, stop + count * per
        table = tables[first:stop]
        truth = case.arrangement.occupancy().to(device)
        other = others[index].to(device)
        coords = voxels.coords[voxels.batch == index]
        yield Result(
            case,
            _iou(occupied[index], truth),
            _iou(occupied[index], other),
            _right_colour(case, coords, table),
            len(table),
            table,
        )


def _iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def _right_colour(case: Case, coords: Tensor, table: NDArray[np.float32]) -> float:
    """Share of gaussians whose colour is near that of the scene's nearest voxel."""
    truth = case.arrangement.coords.to(coords.device).float()
    nearest = torch.cdist(coords[:, 1:].float(), truth).argmin(1)
    rgb = case.arrangement.rgb(case.colour, case.base_colour).to(coords.device)[nearest].cpu().numpy()
    per = len(table) // len(coords)
    got = np.clip(0.5 + SH_C0 * table[:, 6:9], 0, 1).reshape(len(coords), per, 3)
    distance = np.linalg.norm(got - rgb[:, None], axis=-1)
    return float((distance < COLOUR_REACH).mean())
