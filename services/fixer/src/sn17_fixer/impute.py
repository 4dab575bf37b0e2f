"""Opacity of gaussians whose own is lost, from the gaussians around them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

#: Cells along the longest side, finest first; a cell that knows too little asks the next, coarser one.
_LEVELS: Final = (128, 64, 32, 16, 8, 4, 2, 1)
#: Known neighbours that make an answer.
_ENOUGH: Final = 8

Mask = NDArray[np.bool_]
Logits = NDArray[np.float32]
Values = NDArray[np.float64]


def local_logits(splats: Splats, missing: Mask) -> Logits:
    """Logits (k,) for the k gaussians that ``missing`` (n,) selects; 0 where nothing at all is known.

    Opacity falls with the size of a gaussian and varies slowly over the object. So the known logits are split
    into a straight line over the largest log-scale and the rest, and the rest is averaged in the 27 grid
    cells around each missing one, from the finest grid that knows enough. Far from everything known the line
    alone decides.
    """
    known = ~missing & np.isfinite(splats.opacity_logits)
    if not known.any():
        return np.zeros(int(np.count_nonzero(missing)), np.float32)
    sizes = np.nan_to_num(splats.log_scales.max(axis=1), nan=0.0).clip(-10, 6).astype(np.float64)
    slope, intercept = _line(sizes[known], splats.opacity_logits[known].astype(np.float64))
    trend = slope * sizes + intercept
    with np.errstate(invalid="ignore"):
        rest = splats.opacity_logits - trend
    located = np.isfinite(splats.positions).all(axis=1)
    out = np.zeros(len(splats))
    todo = np.flatnonzero(missing & located)
    if len(todo) and (known & located).any():
        out[todo] = np.nan_to_num(_from_grid(splats.positions, rest, known & located, todo), nan=0.0)
    lowest, highest = (float(bound) for bound in np.percentile(splats.opacity_logits[known], (0.1, 99.9)))
    filled: Logits = (out + trend)[missing].clip(lowest, highest).astype(np.float32)
    return filled


def _line(x: Values, y: Values) -> tuple[float, float]:
    """Slope and intercept of the least-squares line."""
    variance = float(x.var())
    slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 1e-6 else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())


def _from_grid(positions: NDArray[np.float32], rest: Values, known: Mask, todo: NDArray[np.intp]) -> Values:
    """What the grids know about each of ``todo``; NaN where even the coarsest has no known neighbour."""
    low = positions[known].min(axis=0).astype(np.float64)
    size = max(float((positions[known].max(axis=0) - low).max()), 1e-30)
    values = rest[known]
    out = np.full(len(todo), np.nan)
    left = np.arange(len(todo))
    for level in _LEVELS:
        cell = size / level
        keys = _keys(positions[known], low, cell, level)
        order, where = np.unique(keys, return_inverse=True)
        counts = np.bincount(where).astype(np.float64)
        sums = np.bincount(where, weights=values).astype(np.float64)
        asked, back = np.unique(_keys(positions[todo[left]], low, cell, level), return_inverse=True)
        total, weight = _around(asked, order, sums, counts, level)
        enough = weight >= (_ENOUGH if level > 1 else 1)
        with np.errstate(invalid="ignore"):
            answer = np.where(enough, total / weight, np.nan)[back]
        out[left] = answer
        left = left[np.isnan(answer)]
        if not len(left):
            break
    return out


def _keys(
    positions: NDArray[np.float32], low: NDArray[np.float64], cell: float, level: int
) -> NDArray[np.int64]:
    # One cell of margin on each side, so that neighbours never wrap into another row of the grid.
    ijk = np.floor((positions - low) / cell).clip(-1, level + 1).astype(np.int64) + 2
    side = level + 5
    keys: NDArray[np.int64] = (ijk[:, 0] * side + ijk[:, 1]) * side + ijk[:, 2]
    return keys


def _around(
    asked: NDArray[np.int64],
    order: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    level: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    side = level + 5
    total, weight = np.zeros(len(asked)), np.zeros(len(asked))
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            for dz in (-1, 0, 1):
                keys = asked + (dx * side + dy) * side + dz
                at = np.searchsorted(order, keys).clip(0, len(order) - 1)
                near = 4.0 ** -(abs(dx) + abs(dy) + abs(dz))
                hit = np.where(order[at] == keys, near, 0)
                total += hit * sums[at]
                weight += hit * counts[at]
    return total, weight
