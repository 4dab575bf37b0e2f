"""Where the parts of a scene lie, and how light falls on them.

Coordinates: the unit cube [-0.5, 0.5]^3 centred at the origin, y up, +z towards the viewer, x to the
viewer's right. Everything keeps a margin of ``MARGIN`` from the cube's faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sn17_scene.model import SHAPES, SIZES, Base, Rgb, Scene, Vector

MARGIN: Final = 0.03
GAP: Final = 0.04
"""Least distance between neighbours at the largest size."""

LIGHT: Final[Vector] = (-0.30, 0.12, 0.08)
"""Weight of each local axis in the baked light: from the upper left front.

Without it a mirrored sphere would be the same sphere, and no scorer could tell.
"""

_TABLE_HEIGHT: Final = 0.30
_TABLE_TOP: Final = 0.06
_TABLE_LEG: Final = 0.045
_PLATE_HEIGHT: Final = 0.06
_BLOCK_HEIGHT: Final = 0.20
_BASE_HALF_WIDTH: Final = 0.5 - MARGIN
_BASE_HALF_DEPTH: Final = 0.30


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """A solid of :data:`sn17_scene.SHAPES` stretched to ``centre`` +- ``half_size``."""

    shape: str
    rgb: Rgb
    centre: Vector
    half_size: Vector


def layout(scene: Scene) -> tuple[PlacedObject, ...]:
    """Place a scene: the objects from left to right, then the parts of the base.

    Objects stand in a row of equal slots; on a base they touch its top, without one they are centred.
    """
    base, floor = _place_base(scene.base) if scene.base else ((), None)
    objects = scene.objects
    width = 2 * (0.5 - MARGIN)
    slot = width / objects.count
    room_x = (slot - (GAP if objects.count > 1 else 0.0)) / 2
    room_y = (0.5 - MARGIN - (floor if floor is not None else MARGIN - 0.5)) / 2
    room_z = 0.5 - MARGIN if floor is None else _BASE_HALF_DEPTH
    ax, ay, az = SHAPES[objects.shape].aspect
    reach = SIZES[objects.size] * min(room_x / ax, room_y / ay, room_z / az)
    half_size = (reach * ax, reach * ay, reach * az)
    y = 0.0 if floor is None else floor + half_size[1]
    row = tuple(
        PlacedObject(objects.shape, objects.rgb, (slot * (i - (objects.count - 1) / 2), y, 0.0), half_size)
        for i in range(objects.count)
    )
    return row + base


def lit(rgb: Rgb, local: NDArray[np.floating]) -> NDArray[np.float32]:
    """Surface colour (n, 3) at local coordinates ``u`` (n, 3) of a placed object of colour ``rgb``.

    With ``t = u . LIGHT`` a lit point (t > 0) is mixed with white by t, a dark one with black by -t.
    """
    t = (local @ np.asarray(LIGHT, dtype=np.float32)).astype(np.float32)[:, None]
    flat = np.asarray(rgb, dtype=np.float32)
    return np.where(t > 0, flat + (1.0 - flat) * t, flat * (1.0 + t)).astype(np.float32)


def _place_base(base: Base) -> tuple[tuple[PlacedObject, ...], float]:
    """Parts of the base and the height of its top."""
    bottom = MARGIN - 0.5
    if base.kind == "plate":
        half = (_BASE_HALF_WIDTH, _PLATE_HEIGHT / 2, _BASE_HALF_WIDTH)
        return (_part("cylinder", base, (0.0, bottom + half[1], 0.0), half),), bottom + _PLATE_HEIGHT
    if base.kind == "block":
        half = (_BASE_HALF_WIDTH, _BLOCK_HEIGHT / 2, _BASE_HALF_DEPTH)
        return (_part("cube", base, (0.0, bottom + half[1], 0.0), half),), bottom + _BLOCK_HEIGHT
    top = bottom + _TABLE_HEIGHT
    leg_half_height = (_TABLE_HEIGHT - _TABLE_TOP) / 2
    x, z = _BASE_HALF_WIDTH - _TABLE_LEG, _BASE_HALF_DEPTH - _TABLE_LEG
    slab = _part(
        "cube",
        base,
        (0.0, top - _TABLE_TOP / 2, 0.0),
        (_BASE_HALF_WIDTH, _TABLE_TOP / 2, _BASE_HALF_DEPTH),
    )
    legs = tuple(
        _part(
            "cube",
            base,
            (sx * x, bottom + leg_half_height, sz * z),
            (_TABLE_LEG, leg_half_height, _TABLE_LEG),
        )
        for sx in (-1, 1)
        for sz in (-1, 1)
    )
    return (slab, *legs), top


def _part(shape: str, base: Base, centre: Vector, half_size: Vector) -> PlacedObject:
    return PlacedObject(shape, base.rgb, centre, half_size)
