"""Where the validator's normalisation draws the object as it is: centred, and at its own scale."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from sn17_splats import SplatError, Splats

from sn17_fixer.model import Repair, Step

#: The extent that the validator scales every model to; at this extent it leaves alpha alone.
VALIDATOR_EXTENT: Final = 1.5


def place(splats: Splats, *, scale: bool = True) -> Repair:
    """One translation, and with ``scale`` one uniform scaling to an extent of 1.5.

    The validator subtracts a single number, the mean over all coordinates, from all three axes. A shift along
    (1, 1, 1) is therefore invisible to it, and the bounding box is centred up to such a shift, which is
    chosen so that the number it subtracts is 0. Raises :class:`SplatError` for positions that are not finite:
    one of them would take all others with it.
    """
    positions = splats.positions.astype(np.float64)
    if not np.isfinite(positions).all():
        raise SplatError("positions that are not numbers can't be placed: choose a policy that drops them")
    low, high = positions.min(axis=0), positions.max(axis=0)
    extent = float((high - low).max())
    center = (low + high) / 2
    shift = -center + (center.mean() - positions.mean())
    factor = VALIDATOR_EXTENT / extent if scale and extent > 0 else 1.0
    placed = splats.replace(
        positions=((positions + shift) * factor).astype(np.float32),
        log_scales=splats.log_scales + np.float32(math.log(factor)) if factor != 1 else splats.log_scales,
    )
    detail: dict[str, int | float | str | bool] = {
        "scale": round(factor, 6),
        **{axis: round(float(value), 6) for axis, value in zip("xyz", shift, strict=True)},
    }
    return Repair(placed, Step("place", len(splats), detail))
