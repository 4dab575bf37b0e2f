"""Front-to-back compositing of footprints in numpy."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sn17_fixer.render.footprints import F32, LAST_LIGHT, MAX_ALPHA, MIN_ALPHA, Footprints

_PAIRS: Final = 300_000  # (gaussian, pixel) pairs worked on at once: some 30 MB


def rasterise_numpy(footprints: Footprints, size: int) -> tuple[F32, F32]:
    """Composite in batches of gaussians; within a batch the pairs of a pixel are one run of a sorted list."""
    colour = np.zeros((size * size, 3), np.float64)
    light = np.ones(size * size)
    finished = np.zeros(size * size, bool)
    half_x = np.sqrt(footprints.reaches * _variance_x(footprints.conics))
    boxes = _boxes(footprints, half_x, size)
    counts = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    for rows in _batches(counts):
        pixels, which, alphas = _pairs(footprints, boxes[rows], counts[rows], rows.start, size)
        open_pixels = ~finished[pixels]
        pixels, which, alphas = pixels[open_pixels], which[open_pixels], alphas[open_pixels]
        order = np.argsort(pixels, kind="stable")
        pixels, which, alphas = pixels[order], which[order], alphas[order]
        if not len(pixels):
            continue
        logs = np.cumsum(np.log1p(-alphas))
        first = np.flatnonzero(np.diff(pixels, prepend=-1))
        run = np.repeat(np.arange(len(first)), np.diff(first, append=len(pixels)))
        base = np.concatenate(([0.0], logs))[first][run]
        after = light[pixels] * np.exp(logs - base)
        drawn = after > LAST_LIGHT
        finished[pixels[~drawn]] = True
        pixels, weight = pixels[drawn], (after / (1 - alphas) * alphas)[drawn]
        for channel in range(3):
            values = weight * footprints.colours[which[drawn], channel]
            colour[:, channel] += np.bincount(pixels, values, size * size)
        light[pixels] = after[drawn]  # the last pair of a pixel wins: the sort is stable
    picture = colour.reshape(size, size, 3).astype(np.float32)
    return picture, light.reshape(size, size).astype(np.float32)


def _variance_x(conics: F32) -> F32:
    out: F32 = conics[:, 2] / (conics[:, 0] * conics[:, 2] - conics[:, 1] ** 2)
    return out


def _boxes(footprints: Footprints, half_x: F32, size: int) -> NDArray[np.int64]:
    """First and one past the last column and row (n, 4) whose pixel centres may lie inside."""
    x, y = footprints.centres[:, 0], footprints.centres[:, 1]
    half_y = footprints.half_heights
    bounds = np.stack([x - half_x, x + half_x, y - half_y, y + half_y], axis=1) - np.float32(0.5)
    out = np.stack([np.ceil(bounds[:, 0]), np.floor(bounds[:, 1]) + 1, np.ceil(bounds[:, 2]),
                    np.floor(bounds[:, 3]) + 1], axis=1)  # fmt: skip
    out = out.clip(0, size).astype(np.int64)
    out[:, 1] = np.maximum(out[:, 1], out[:, 0])
    out[:, 3] = np.maximum(out[:, 3], out[:, 2])
    return out


def _batches(counts: NDArray[np.int64]) -> list[slice]:
    ends = np.cumsum(counts)
    out = []
    start = 0
    while start < len(counts):
        before = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
        out.append(slice(start, stop))
        start = stop
    return out


def _pairs(
    footprints: Footprints, boxes: NDArray[np.int64], counts: NDArray[np.int64], offset: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pixels, gaussians and alphas of all pairs that are drawn."""
    local = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(local)) - np.repeat(np.cumsum(counts) - counts, counts)
    width = (boxes[:, 1] - boxes[:, 0])[local]
    column = boxes[local, 0] + place % np.maximum(width, 1)
    row = boxes[local, 2] + place // np.maximum(width, 1)
    which = local + offset
    dx = (column + 0.5 - footprints.centres[which, 0]).astype(np.float32)
    dy = (row + 0.5 - footprints.centres[which, 1]).astype(np.float32)
    xx, xy, yy = footprints.conics[which].T
    power = np.float32(0.5) * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
    alphas = np.minimum(footprints.alphas[which] * np.exp(-power), np.float32(MAX_ALPHA))
    drawn = (power >= 0) & (alphas >= MIN_ALPHA)
    return (row * size + column)[drawn], which[drawn], alphas[drawn].astype(np.float64)
