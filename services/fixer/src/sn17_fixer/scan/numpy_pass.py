"""The pass in numpy."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats
from sn17_splats.convention import TRANSPARENT_LOGIT

from sn17_fixer.scan.columns import (
    BINS,
    BINS_PER_LOGIT,
    COLUMNS,
    HISTOGRAM_LOW,
    OPACITY,
    ROTATIONS,
    TAME,
    Scan,
    columns_of,
    pivots,
)

_CHUNK: Final = 8192  # rows: a chunk's columns stay in the second-level cache


def scan_numpy(splats: Splats) -> Scan:
    """Chunks of rows, copied column by column."""
    width = len(COLUMNS)
    nonfinite = np.zeros((width, 3), np.int64)
    minimum, maximum = np.full(width, np.inf), np.full(width, -np.inf)
    total, squares = np.zeros(width), np.zeros(width)
    pivot = pivots(splats)
    histogram = np.zeros(BINS, np.int64)
    alphas = np.zeros(2)
    transparent, shortest, longest = 0, np.inf, -np.inf
    with np.errstate(all="ignore"):
        for start in range(0, len(splats), _CHUNK):
            columns = columns_of(splats.select(slice(start, start + _CHUNK)))
            for c, column in enumerate(columns):
                low, high = column.min(), column.max()
                if not (low > -TAME and high < TAME):
                    nonfinite[c] += (
                        np.count_nonzero(np.isnan(column)),
                        np.count_nonzero(column == np.inf),
                        np.count_nonzero(column == -np.inf),
                    )
                    column = column[np.isfinite(column)].astype(np.float64)
                    low, high = column.min(initial=np.inf), column.max(initial=-np.inf)
                minimum[c], maximum[c] = min(minimum[c], low), max(maximum[c], high)
                distance = column - pivot[c]
                total[c] += distance.sum() + float(pivot[c]) * len(column)
                squares[c] += distance @ distance
            logits = columns[OPACITY]
            transparent += int(np.count_nonzero(logits < TRANSPARENT_LOGIT))
            if np.isnan(logits.sum()):  # so do infinities of both signs, which lose nothing here
                logits = logits[~np.isnan(logits)]
            histogram += _histogram(logits)
            alpha = 1 / (1 + np.exp(-logits))
            alphas += alpha.sum(), alpha @ alpha
            lengths = np.square(columns[ROTATIONS]).sum(axis=0)
            lengths = lengths[np.isfinite(lengths)]
            shortest = min(shortest, float(lengths.min(initial=np.inf)))
            longest = max(longest, float(lengths.max(initial=-np.inf)))
    return Scan(
        len(splats), nonfinite, minimum, maximum, total, pivot.astype(np.float64), squares, histogram,
        float(alphas[0]), float(alphas[1]), transparent, (shortest, longest),
    )  # fmt: skip


def _histogram(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    bins = (logits - np.float32(HISTOGRAM_LOW)) * np.float32(BINS_PER_LOGIT) + np.float32(1)
    np.clip(bins, 0, BINS - 1, out=bins)
    return np.bincount(bins.astype(np.intp), minlength=BINS)
