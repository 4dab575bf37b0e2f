"""Points far off the object: the validator scales by the bounding box of all points, so one of them can
shrink the whole picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

#: More than this share is a part of the scene, not a few strays.
MAX_STRAY_SHARE: Final = 1e-3
#: Strays are dropped only where the object would be drawn so much larger without them.
MIN_SIZE_RATIO: Final = 1.05
#: A group of this many gaussians within a cell keeps itself: it is a part that stands apart.
MIN_COMPANY: Final = 32
#: Unless their alphas add up to less than this: invisible points are never a part.
VISIBLE_ALPHA: Final = 0.05
_SAMPLE: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Strays:
    """``rows`` (count,) are the indices of the strays, ``core_extent`` the largest extent without them."""

    rows: NDArray[np.intp]
    core_extent: float

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.rows)


def generous_box(splats: Splats) -> NDArray[np.float32]:
    """A box (2, 3) that holds everything but strays: 1st to 99th percentile of a sample, grown by its size.

    Looks at about 4,096 gaussians spread evenly over the file.
    """
    sample = splats.positions[:: max(1, len(splats) // _SAMPLE)]
    finite = sample[np.isfinite(sample).all(axis=1)].astype(np.float64)
    if not len(finite):
        return np.array([[-np.inf] * 3, [np.inf] * 3], np.float32)
    low, high = np.percentile(finite, (1, 99), axis=0)
    margin = max(float((high - low).max()), 1e-12)
    with np.errstate(over="ignore"):
        return np.array([low - margin, high + margin], np.float32)


def find_strays(splats: Splats, box: NDArray[np.float32]) -> Strays:
    """The gaussians outside ``box`` (2, 3) that are few, alone or invisible, and shrink the picture.

    Rows with a position that is not finite are ignored. Nothing is found where dropping the candidates
    would not enlarge the drawn object by 5 %.
    """
    positions = splats.positions
    finite = np.isfinite(positions).all(axis=1)
    inside = (positions >= box[0]).all(axis=1) & (positions <= box[1]).all(axis=1)
    candidates = np.flatnonzero(finite & ~inside)
    kept = finite & inside
    nothing = Strays(np.empty(0, np.intp), 0.0)
    if not len(candidates) or len(candidates) > max(1, MAX_STRAY_SHARE * len(splats)) or not kept.any():
        return nothing
    cell = max(float((box[1].astype(np.float64) - box[0]).max()) / 8, 1e-30)
    alone = _alone(positions[candidates], cell)
    with np.errstate(over="ignore"):
        invisible = 1 / (1 + np.exp(-splats.opacity_logits[candidates])) < VISIBLE_ALPHA
    rows = candidates[alone | invisible]
    if not len(rows):
        return nothing
    kept[np.setdiff1d(candidates, rows)] = True
    core = _extent(positions[kept])
    with_strays = _extent(positions[finite])
    if core <= 0 or with_strays < MIN_SIZE_RATIO * core:
        return nothing
    return Strays(rows, core)


def _alone(points: NDArray[np.float32], cell: float) -> NDArray[np.bool_]:
    """Whether fewer than ``MIN_COMPANY`` of the points share a cell's neighbourhood with each."""
    scaled = (points.astype(np.float64) / cell).clip(-1e15, 1e15)
    alone = np.empty(len(points), bool)
    for i, point in enumerate(scaled):
        alone[i] = np.count_nonzero(np.abs(scaled - point).max(axis=1) <= 1) < MIN_COMPANY
    return alone


def _extent(points: NDArray[np.float32]) -> float:
    return float((points.max(axis=0).astype(np.float64) - points.min(axis=0)).max())
