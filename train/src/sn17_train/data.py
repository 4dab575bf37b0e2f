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
        flat = torch.where(self.is_base[:, None], palette[base_colour], palette[colour])
        t = self.light[:, None]
        return torch.where(t > 0, flat + (1 - flat) * t, flat * (1 + t))

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
    above, below, mark = surface.rgb[order].T
    return Arrangement(
        scene,
        torch.from_numpy(coords[order]),
        torch.from_numpy(above + (below - 1)),
        torch.from_numpy(np.abs(mark - below) < np.abs(mark - above)),
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
