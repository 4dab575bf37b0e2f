"""Drop the stray points that shrink the object in the validator's eyes."""

from __future__ import annotations

import numpy as np
from sn17_splats import Splats

from sn17_fixer.model import Repair, Step
from sn17_fixer.strays import find_strays, generous_box


def drop_strays(splats: Splats) -> Repair:
    """Drop what :func:`~sn17_fixer.strays.find_strays` finds. Expects finite positions."""
    strays = find_strays(splats, generous_box(splats))
    if not strays.count:
        return Repair(splats, Step("drop_strays", 0))
    keep = np.ones(len(splats), bool)
    keep[strays.rows] = False
    low, high = splats.positions.min(axis=0), splats.positions.max(axis=0)
    ratio = float((high.astype(np.float64) - low).max()) / strays.core_extent
    return Repair(splats.select(keep), Step("drop_strays", strays.count, {"size_ratio": round(ratio, 4)}))
