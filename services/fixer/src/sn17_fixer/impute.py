"""Opacity of gaussians whose own is lost, from the gaussians around them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

from sn17_fixer.model import BLOCK

#: Cells along the longest side, finest first; a cell that knows too little asks the next, coarser one.
_LEVELS: Final = (128, 64, 32, 16, 8, 4, 2, 1)
#: Known neighbours that make an answer.
_ENOUGH: Final = 8

Mask = NDArray[np.bool_]
Logits = NDArray[np.float32]


def local_logits(splats: Splats, missing: Mask, *, blocks: bool) -> Logits:
    """Logits (k,) for the k gaussians that ``missing`` (n,) marks; 0 where nothing at all is known.

    With ``blocks`` every 32 consecutive rows share a voxel: the median of a block's known values is taken
    where it has four or more. All others get the mean of the known values in the 27 grid cells around
    them, from the finest grid that has enough.
    """
    out = np.full(len(splats), np.nan, np.float32)
    known = ~missing & np.isfinite(splats.opacity_logits)
    if blocks and len(splats) % BLOCK == 0:
        out = _block_medians(splats.opacity_logits, known)
    todo = missing & np.isnan(out) & np.isfinite(splats.positions).all(axis=1)
    if todo.any() and known.any():
        usable = known & np.isfinite(splats.positions).all(axis=1)
        out[todo] = _from_grid(splats.positions, splats.opacity_logits, usable, np.flatnonzero(todo))
    found: Logits = out[missing]
    fallback = float(np.median(splats.opacity_logits[known])) if known.any() else 0.0
    return np.where(np.isnan(found), np.float32(fallback), found)


def _block_medians(logits: Logits, known: Mask) -> Logits:
    grid = np.where(known, logits, np.float32(np.inf)).reshape(-1, BLOCK)
    grid.sort(axis=1)
    count = known.reshape(-1, BLOCK).sum(axis=1)
    rows = np.arange(len(grid))
    low, high = grid[rows, (np.maximum(count, 1) - 1) // 2], grid[rows, np.minimum(count // 2, BLOCK - 1)]
    with np.errstate(invalid="ignore"):
        medians = np.where(count >= 4, (low + high) / 2, np.float32(np.nan)).astype(np.float32)
    return np.repeat(medians, BLOCK)


def _from_grid(positions: NDArray[np.float32], logits: Logits, known: Mask, todo: NDArray[np.intp]) -> Logits:
    low = positions[known].min(axis=0).astype(np.float64)
    size = max(float((positions[known].max(axis=0) - low).max()), 1e-30)
    values = logits[known].astype(np.float64)
    out = np.full(len(todo), np.nan, np.float32)
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
