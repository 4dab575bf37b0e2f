"""Placed objects to surface voxels, by testing the centres of a grid over the unit cube."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sn17_scene import STAR_INNER, TORUS_TUBE, PlacedObject, lit

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Surface voxels of a grid of ``resolution``^3: integer ``coordinates`` (n, 3) and ``rgb`` (n, 3)."""

    resolution: int
    coordinates: NDArray[np.int32]
    rgb: Floats

    def __len__(self) -> int:
        return len(self.coordinates)


def scene_surface(objects: tuple[PlacedObject, ...], resolution: int) -> Surface:
    """Voxels inside any object with at least one of six neighbours outside all of them."""
    solid = np.zeros((resolution,) * 3, dtype=bool)
    rgb = np.zeros((*solid.shape, 3), dtype=np.float32)
    for item in reversed(objects):
        block, local = _local_grid(item, resolution)
        inside = INSIDE[item.shape](*(local[..., axis] for axis in range(3)))
        solid[block] |= inside
        rgb[block][inside] = lit(item.rgb, local[inside])
    coordinates = np.argwhere(shell(solid)).astype(np.int32)
    return Surface(resolution, coordinates, rgb[tuple(coordinates.T)])


def shell(solid: Mask) -> Mask:
    """Cells of ``solid`` that touch a cell outside it; outside the grid nothing is solid."""
    padded = np.pad(solid, 1)
    buried = np.ones_like(solid)
    for axis in range(3):
        for step in (0, 2):
            window = [slice(1, -1)] * 3
            window[axis] = slice(step, step + solid.shape[axis])
            buried &= padded[tuple(window)]
    return solid & ~buried


def _local_grid(item: PlacedObject, resolution: int) -> tuple[tuple[slice, ...], Floats]:
    """The block of the grid that ``item`` can touch, and its cell centres in local coordinates."""
    axes = []
    block = []
    for centre, half in zip(item.centre, item.half_size, strict=True):
        low = max(0, int(np.floor((centre - half + 0.5) * resolution)))
        high = min(resolution, int(np.ceil((centre + half + 0.5) * resolution)))
        centres = (np.arange(low, high, dtype=np.float32) + 0.5) / resolution - 0.5
        axes.append((centres - np.float32(centre)) / np.float32(half))
        block.append(slice(low, high))
    return tuple(block), np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _polygon_star() -> Floats:
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, STAR_INNER)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=-1).astype(np.float32)


_STAR: Final = _polygon_star()


def _star(x: Floats, y: Floats, z: Floats) -> Mask:
    """Even-odd rule against the ten edges."""
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(_STAR, np.roll(_STAR, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside & (np.abs(z) <= 1)


def _cross(x: Floats, y: Floats, z: Floats) -> Mask:
    thin = [np.abs(axis) <= np.float32(1 / 3) for axis in (x, y, z)]
    return ((thin[0] & thin[1]) | (thin[1] & thin[2]) | (thin[0] & thin[2])) & _cube(x, y, z)


def _cube(x: Floats, y: Floats, z: Floats) -> Mask:
    return (np.abs(x) <= 1) & (np.abs(y) <= 1) & (np.abs(z) <= 1)


def _upright(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Mask]:
    return np.hypot(x, z), np.abs(y) <= 1


def _cylinder(x: Floats, y: Floats, z: Floats) -> Mask:
    rho, within = _upright(x, y, z)
    return (rho <= 1) & within


def _cone(x: Floats, y: Floats, z: Floats) -> Mask:
    rho, within = _upright(x, y, z)
    return (rho <= (1 - y) / 2) & within


def _pyramid(x: Floats, y: Floats, z: Floats) -> Mask:
    return (np.maximum(np.abs(x), np.abs(z)) <= (1 - y) / 2) & (np.abs(y) <= 1)


def _torus(x: Floats, y: Floats, z: Floats) -> Mask:
    ring = np.hypot(x, y) - np.float32(1 - TORUS_TUBE)
    inside: Mask = ring**2 + (TORUS_TUBE * z) ** 2 <= np.float32(TORUS_TUBE**2)
    return inside


def _capsule(x: Floats, y: Floats, z: Floats) -> Mask:
    inside: Mask = x**2 + z**2 + np.maximum(np.abs(2 * y) - 1, 0) ** 2 <= 1
    return inside


def _dome(x: Floats, y: Floats, z: Floats) -> Mask:
    return (x**2 + z**2 + ((y + 1) / 2) ** 2 <= 1) & (y >= -1)


INSIDE: Final[Mapping[str, Callable[[Any, Any, Any], Mask]]] = {
    "sphere": lambda x, y, z: x**2 + y**2 + z**2 <= 1,
    "cube": _cube,
    "cylinder": _cylinder,
    "cone": _cone,
    "pyramid": _pyramid,
    "torus": _torus,
    "capsule": _capsule,
    "dome": _dome,
    "diamond": lambda x, y, z: np.abs(x) + np.abs(y) + np.abs(z) <= 1,
    "star": _star,
    "cross": _cross,
    "wedge": lambda x, y, z: _cube(x, y, z) & (y <= x),
}
"""Inside tests at local coordinates, from the definitions in ``sn17_scene.SHAPES``."""
