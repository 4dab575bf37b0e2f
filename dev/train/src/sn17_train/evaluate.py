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
from sn17_trellis.engine.config import EXACT, SamplerParams, Savings
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


@dataclass(frozen=True, slots=True)
class Setting:
    """How both stages are sampled."""

    structure: SamplerParams
    latents: SamplerParams
    structure_savings: Savings = EXACT
    latent_savings: Savings = EXACT


@torch.inference_mode()
def evaluate(
    pipeline: Pipeline, cases: list[Case], setting: Setting, *, seed: int = 0, batch: int = 32
) -> Iterator[Result]:
    """Sample every case; `seed` + its index is each case's own seed, as a worker would use it."""
    others = [case.arrangement.occupancy() for case in [*cases[1:], cases[0]]]
    for start in range(0, len(cases), batch):
        part = Batch.of(pipeline, cases[start : start + batch], seed + start)
        latent = part.structure(setting.structure, setting.structure_savings)
        voxels = part.voxels(latent)
        slat = part.latents(voxels, setting.latents, setting.latent_savings)
        yield from part.results(voxels, slat, others[start : start + batch])


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Several cases at once, stage by stage; every stage draws the noise a worker would draw for its case."""

    pipeline: Pipeline
    cases: list[Case]
    cond: Tensor
    uncond: Tensor
    noise: Tensor
    states: list[Tensor]

    @classmethod
    def of(cls, pipeline: Pipeline, cases: list[Case], seed: int) -> Batch:
        """Conditions, and the generators' states after the first draw."""
        conditioner = pipeline.conditioner
        assert isinstance(conditioner, TextConditioner)
        pairs = [conditioner.condition(case.prompt) for case in cases]
        cond = torch.cat([pair[0] for pair in pairs])
        generators = [torch.Generator().manual_seed(seed + index) for index in range(len(cases))]
        noise = torch.cat([pipeline.structure_noise(generator) for generator in generators])
        states = [generator.get_state() for generator in generators]
        return cls(pipeline, cases, cond, pairs[0][1].expand_as(cond), noise, states)

    def structure(self, params: SamplerParams, savings: Savings = EXACT) -> Tensor:
        """Structure latents [B, C, r, r, r]."""
        velocity = EagerRunner().structure(self.pipeline.flow, params, self.cond, self.uncond)
        return sample(velocity, self.noise, params, savings=savings)

    def voxels(self, latent: Tensor) -> Voxels:
        """Occupied voxels of all cases; one voxel where a case has none."""
        filled = self.pipeline.decoder(latent)[:, 0] > 0
        filled[~filled.flatten(1).any(1), 0, 0, 0] = True
        return Voxels(torch.argwhere(filled).int(), filled.shape[-1], len(self.cases))

    def counts(self, voxels: Voxels) -> list[int]:
        """Voxels of each case."""
        return torch.bincount(voxels.batch, minlength=len(self.cases)).tolist()

    def latents(self, voxels: Voxels, params: SamplerParams, savings: Savings = EXACT) -> Tensor:
        """Structured latents [N, C], in the decoder's scale."""
        pipeline, drawn = self.pipeline, []
        channels = pipeline.latent_flow.config.in_channels
        for count, state in zip(self.counts(voxels), self.states, strict=True):
            generator = torch.Generator()
            generator.set_state(state)
            drawn.append(torch.randn(count, channels, generator=generator))
        velocity = EagerRunner().latents(pipeline.latent_flow, params, self.cond, self.uncond, voxels)
        slat = sample(velocity, torch.cat(drawn).to(pipeline.device), params, savings=savings)
        scale = pipeline.normalization
        return slat * slat.new_tensor(scale.std) + slat.new_tensor(scale.mean)

    def results(self, voxels: Voxels, slat: Tensor, others: list[Tensor]) -> Iterator[Result]:
        """Assets and how good they are; `others` are the occupancies of other prompts."""
        device = self.pipeline.device
        tables = self.pipeline.decode_gaussians(slat, voxels).cpu().numpy()
        per = self.pipeline.gaussian_decoder.config.representation_config.num_gaussians
        stop = 0
        for index, (case, count) in enumerate(zip(self.cases, self.counts(voxels), strict=True)):
            first, stop = stop, stop + count * per
            table = tables[first:stop]
            coords = voxels.coords[voxels.batch == index]
            occupied = torch.zeros((voxels.resolution,) * 3, dtype=torch.bool, device=device)
            occupied[tuple(coords[:, 1:].long().T)] = True
            yield Result(
                case,
                _iou(occupied, case.arrangement.occupancy().to(device)),
                _iou(occupied, others[index].to(device)),
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
