"""Scenes as training data: a few hundred shapes of voxels, coloured by the grammar's own light.

The grammar has 432 arrangements (shape, size, count, base) and ten colours for objects and base. Some prompts
are never trained on, by the hash of their words; some arrangements never appear at all, in any colour.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from sn17_scene import BASES, COLOURS, COUNTS, SHAPES, SIZES, Base, Scene, SceneObject, describe, layout
from sn17_trellis.procedural.voxels import scene_surface
from torch import Tensor

RESOLUTION = 32
HELD_OUT_PROMPTS = 0.10
HELD_OUT_ARRANGEMENTS = 0.05
_COLOUR_NAMES = tuple(COLOURS)
PALETTE = torch.tensor([COLOURS[name] for name in _COLOUR_NAMES])


def _share(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


def lit(flat: Tensor, light: Tensor) -> Tensor:
    """Colours [N, 3] of surfaces of colour `flat` [N, 3] under `light` [N]: towards white or black."""
    t = light[:, None]
    return torch.where(t > 0, flat + (1 - flat) * t, flat * (1 + t))


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """One scene without colours.

    `coords` [N, 3] int16 in the networks' frame, lexicographic; `light` [N] float32, the baked light's mix
    with white (above 0) or black; `is_base` [N].
    """

    scene: Scene
    coords: Tensor
    light: Tensor
    is_base: Tensor

    @property
    def held_out(self) -> bool:
        """Whether no prompt with this arrangement is trained on."""
        return _share("arrangement " + describe(self.scene)) < HELD_OUT_ARRANGEMENTS

    def prompt(self, colour: int, base_colour: int) -> str:
        """The prompt with colours by their index; the base's is ignored where there is none."""
        objects = replace(self.scene.objects, colour=_COLOUR_NAMES[colour])
        base = self.scene.base and replace(self.scene.base, colour=_COLOUR_NAMES[base_colour])
        return describe(Scene(objects, base))

    def rgb(self, colour: int, base_colour: int) -> Tensor:
        """Colours [N, 3] of the voxels, as the grammar lights them."""
        palette = PALETTE.to(self.light.device)
        return lit(torch.where(self.is_base[:, None], palette[base_colour], palette[colour]), self.light)

    def occupancy(self) -> Tensor:
        """Bool [R, R, R] in the networks' frame."""
        grid = torch.zeros((RESOLUTION,) * 3, dtype=torch.bool, device=self.coords.device)
        grid[tuple(self.coords.long().T)] = True
        return grid

    def to(self, device: torch.device) -> Arrangement:
        """The same on another device."""
        return Arrangement(self.scene, self.coords.to(device), self.light.to(device), self.is_base.to(device))


def held_out(prompt: str) -> bool:
    """Whether a prompt is kept from training for its words."""
    return _share(prompt) < HELD_OUT_PROMPTS


def to_network_frame(coords: NDArray[np.integer]) -> NDArray[np.int16]:
    """Voxels of an asset (y up, +z front) to the frame whose PLY export turns (x, y, z) into (x, -z, y)."""
    x, y, z = coords.T
    return np.stack([x, z, RESOLUTION - 1 - y], axis=1).astype(np.int16)


def _arrange(scene: Scene) -> Arrangement:
    placed = layout(scene)
    count = scene.objects.count
    # Black, white and a mark for the base: what light makes of them tells the light and the part.
    probes = tuple(replace(part, rgb=(0.0, 1.0, float(index >= count))) for index, part in enumerate(placed))
    surface = scene_surface(probes, RESOLUTION)
    coords = to_network_frame(surface.coordinates)
    order = np.lexsort(coords.T[::-1])
    above, below, base = surface.rgb[order].T
    return Arrangement(
        scene,
        torch.from_numpy(coords[order]),
        torch.from_numpy(above + (below - 1)),
        torch.from_numpy(np.abs(base - below) < np.abs(base - above)),
    )


def arrangements(limit: int | None = None) -> list[Arrangement]:
    """Every arrangement of the grammar, in a fixed order; `limit` takes every n-th for small runs."""
    bases = [None, *(Base(kind, "brown") for kind in BASES)]
    scenes = [
        Scene(SceneObject(shape, "red", size, count), base)
        for shape, size, count, base in product(SHAPES, SIZES, COUNTS.values(), bases)
    ]
    step = 1 if limit is None else max(1, len(scenes) // limit)
    return [_arrange(scene) for scene in scenes[::step][:limit]]


def random_colours(rng: np.random.Generator, arrangement: Arrangement) -> tuple[int, int]:
    """Two different colours, as the grammar draws them."""
    colour = int(rng.integers(len(_COLOUR_NAMES)))
    base = int(rng.integers(len(_COLOUR_NAMES) - 1))
    return colour, base + (base >= colour)


def draw(rng: np.random.Generator, pool: list[Arrangement], *, unseen: bool) -> tuple[Arrangement, int, int]:
    """An arrangement with colours whose prompt is (or is not) kept from training."""
    while True:
        one = pool[int(rng.integers(len(pool)))]
        colours = random_colours(rng, one)
        if (one.held_out or held_out(one.prompt(*colours))) == unseen:
            return one, *colours


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """Several coloured scenes: `rgb` [N, 3] and `coords` int32 [N, 4] (scene, x, y, z) of their voxels."""

    rgb: Tensor
    coords: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Everything that is trained on, as tables on one device, so that a batch costs a few gathers.

    Per prompt: `prompts`, `arrangement` (index into the pool) and `colours` [P, 2]. Per arrangement:
    `prompt_range` [A, 2] and `voxel_range` [A, 2] (start, count; no prompts where it is held out). Per voxel:
    `coords` int32 [V, 3], `light`, `is_base`.
    """

    prompts: list[str]
    arrangement: Tensor
    colours: Tensor
    prompt_range: NDArray[np.int64]
    voxel_range: Tensor
    coords: Tensor
    light: Tensor
    is_base: Tensor

    @classmethod
    def of(cls, pool: list[Arrangement]) -> Corpus:
        """The prompts of a pool that are not held out, with all its voxels."""
        device = pool[0].coords.device
        prompts: list[str] = []
        rows: list[tuple[int, int, int]] = []
        ranges = np.zeros((len(pool), 2), np.int64)
        for index, one in enumerate(pool):
            ranges[index, 0] = len(prompts)
            for colour, base in product(range(len(_COLOUR_NAMES)), repeat=2):
                # Without a base its colour means nothing: one row stands for all.
                if one.held_out or (colour == base if one.scene.base else base):
                    continue
                prompt = one.prompt(colour, base)
                if not held_out(prompt):
                    prompts.append(prompt)
                    rows.append((index, colour, base))
            ranges[index, 1] = len(prompts) - ranges[index, 0]
        table = torch.tensor(rows, device=device)
        counts = torch.tensor([len(one.coords) for one in pool], device=device)
        return cls(
            prompts,
            table[:, 0],
            table[:, 1:],
            ranges,
            torch.stack([counts.cumsum(0) - counts, counts], dim=1),
            torch.cat([one.coords for one in pool]).int(),
            torch.cat([one.light for one in pool]),
            torch.cat([one.is_base for one in pool]),
        )

    def draw(self, rng: np.random.Generator, count: int) -> Tensor:
        """Indices [count] of prompts: every arrangement as often as any other, then every colouring."""
        pool = np.flatnonzero(self.prompt_range[:, 1])
        start, size = self.prompt_range[pool[rng.integers(len(pool), size=count)]].T
        chosen = start + np.floor(rng.random(count) * size).astype(np.int64)
        return torch.from_numpy(chosen).to(self.coords.device)

    def scenes(self, chosen: Tensor) -> Scenes:
        """The voxels of the prompts `chosen` [B], scene by scene."""
        start, size = self.voxel_range[self.arrangement[chosen]].unbind(1)
        scene = torch.repeat_interleave(torch.arange(len(chosen), device=chosen.device), size)
        voxel = torch.arange(len(scene), device=chosen.device) + (start - (size.cumsum(0) - size))[scene]
        palette = PALETTE.to(self.light.device)
        colour, base = self.colours[chosen][scene].unbind(1)
        flat = palette[torch.where(self.is_base[voxel], base, colour)]
        coords = torch.cat([scene[:, None].int(), self.coords[voxel]], dim=1)
        return Scenes(lit(flat, self.light[voxel]), coords)
