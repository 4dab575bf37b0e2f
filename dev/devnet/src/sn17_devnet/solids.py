"""The scene grammar's solids as point-in-solid tests: the referee's own reading of their definitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_scene import STAR_INNER, TORUS_TUBE, PlacedObject, layout, lit, parse

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

SURFACE_STEPS: Final = 96
"""Samples along the unit cube when a scene's surface is looked for."""


def inside(shape: str, u: Array) -> Mask:
    """Which local points (..., 3) with ``|u| <= 1`` are in the solid."""
    return _TESTS[shape](u[..., 0], u[..., 1], u[..., 2])


@lru_cache(maxsize=64)
def surface(prompt: str) -> tuple[Array, Array, float | None]:
    """Points (n, 3) just under the surface of the scene, their colours (n, 3), and the height of the base's
    top.

    Coordinates are those of the scene, in [-0.5, 0.5]. The height is None for a scene without a base.

    Raises:
        PromptError: the prompt is not in the grammar.
    """
    scene = parse(prompt)
    parts = layout(scene)
    floor = None
    if scene.base is not None:
        floor = max(p.centre[1] + p.half_size[1] for p in parts[scene.objects.count :])
    solid = np.zeros((SURFACE_STEPS,) * 3, dtype=bool)
    colour = np.zeros((*solid.shape, 3), dtype=np.float32)
    for part in reversed(parts):
        region, u = _cells(part)
        within = inside(part.shape, u)
        solid[region] |= within
        colour[region][within] = lit(part.rgb, u[within])
    index = np.nonzero(solid & ~_eroded(solid))
    points = (np.stack(index, axis=-1) + 0.5) / SURFACE_STEPS - 0.5
    return points.astype(np.float32), colour[index], floor


def _cells(part: PlacedObject) -> tuple[tuple[slice, slice, slice], Array]:
    """The part's box as slices of the sampling grid, and the local coordinates of the samples in it."""
    slices = []
    axes = []
    for centre, half in zip(part.centre, part.half_size, strict=True):
        low = int(np.floor((centre - half + 0.5) * SURFACE_STEPS))
        high = int(np.ceil((centre + half + 0.5) * SURFACE_STEPS))
        samples = (np.arange(low, high, dtype=np.float32) + 0.5) / SURFACE_STEPS - 0.5
        slices.append(slice(low, high))
        axes.append((samples - centre) / half)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)
    grid[np.abs(grid).max(axis=-1) > 1.0] = 2.0
    return (slices[0], slices[1], slices[2]), grid


def _eroded(solid: Mask) -> Mask:
    """Cells whose six neighbours are all in the solid."""
    padded = np.pad(solid, 1)
    result = solid.copy()
    for axis in range(3):
        for shift in (-1, 1):
            result &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
    return result


def _star(x: Array, y: Array, z: Array) -> Mask:
    # One tenth of the star by symmetry: the polar angle from the nearest outer corner, folded, against the
    # straight edge from that corner (radius 1, angle 0) to an inner one (radius STAR_INNER, 36 degrees).
    angle = np.arctan2(x, y)
    folded = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(x, y)
    inner = np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)]) * STAR_INNER
    along, across = radius * np.cos(folded), radius * np.sin(folded)
    edge = (inner[0] - 1.0) * across - inner[1] * (along - 1.0)
    within: Mask = (edge >= 0) & (np.abs(z) <= 1)
    return within


def _cross(x: Array, y: Array, z: Array) -> Mask:
    narrow = (np.abs(x) <= 1 / 3).astype(np.int8) + (np.abs(y) <= 1 / 3) + (np.abs(z) <= 1 / 3)
    return (narrow >= 2) & _box(x, y, z)


def _box(x: Array, y: Array, z: Array) -> Mask:
    return np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z)) <= 1


_TESTS: Final[dict[str, Callable[[Array, Array, Array], Mask]]] = {
    "sphere": lambda x, y, z: x * x + y * y + z * z <= 1,
    "cube": _box,
    "cylinder": lambda x, y, z: (np.hypot(x, z) <= 1) & (np.abs(y) <= 1),
    "cone": lambda x, y, z: (np.hypot(x, z) <= (1 - y) / 2) & (np.abs(y) <= 1),
    "pyramid": lambda x, y, z: (np.maximum(np.abs(x), np.abs(z)) <= (1 - y) / 2) & (np.abs(y) <= 1),
    "torus": lambda x, y, z: (
        (np.hypot(x, y) - (1 - TORUS_TUBE)) ** 2 + (TORUS_TUBE * z) ** 2 <= TORUS_TUBE**2
    ),
    "capsule": lambda x, y, z: x * x + z * z + np.maximum(np.abs(2 * y) - 1, 0) ** 2 <= 1,
    "dome": lambda x, y, z: (x * x + z * z + ((y + 1) / 2) ** 2 <= 1) & (np.abs(y) <= 1),
    "diamond": lambda x, y, z: np.abs(x) + np.abs(y) + np.abs(z) <= 1,
    "star": _star,
    "cross": _cross,
    "wedge": lambda x, y, z: (y <= x) & _box(x, y, z),
}
