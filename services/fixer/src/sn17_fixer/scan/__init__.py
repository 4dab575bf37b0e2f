"""One pass over all columns of a splat: the sums that a diagnosis is made of."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

from sn17_fixer.gates import TRANSPARENT_LOGIT

COLUMNS: Final = (
    "x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
)  # fmt: skip
POSITIONS: Final = slice(0, 3)
SCALES: Final = slice(3, 6)
ROTATIONS: Final = slice(6, 10)
OPACITY: Final = 13

BINS_PER_LOGIT: Final = 64
HISTOGRAM_LOW: Final = -16
#: Bins of 1/64 from -16 to 16, with one at each end for what lies beyond, infinities included.
BINS: Final = 32 * BINS_PER_LOGIT + 2

#: Up to here squares can be summed in single precision.
TAME: Final = 1e15
_CHUNK: Final = 8192  # rows: a chunk's columns stay in the second-level cache


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Column order is that of ``COLUMNS``.

    ``nonfinite`` (14, 3) counts NaN, +inf, -inf. ``minimum``, ``maximum``, ``total`` and ``squares`` (14,)
    are of the finite values, ``squares`` of their distances from ``pivot`` (14,), which is near the mean.
    ``histogram`` (BINS,) is of the logits, ``alpha_total`` and ``alpha_squares`` are of the sigmoids of all
    that are no NaN, ``transparent`` is the number below the gate's threshold, ``norms`` are the
    least and the largest squared length of a finite quaternion.
    """

    count: int
    nonfinite: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    total: NDArray[np.float64]
    pivot: NDArray[np.float64]
    squares: NDArray[np.float64]
    histogram: NDArray[np.int64]
    alpha_total: float
    alpha_squares: float
    transparent: int
    norms: tuple[float, float]


class Scanner(Protocol):
    """An implementation of the pass."""

    def __call__(self, splats: Splats) -> Scan: ...


@functools.cache
def default_scanner() -> Scanner:
    """The compiled pass where numba is installed, else the one in numpy."""
    if importlib.util.find_spec("numba") is None:
        return scan_numpy
    from sn17_fixer.scan.numba_pass import scan_numba

    return scan_numba


def pivots(splats: Splats) -> NDArray[np.float32]:
    """One finite value (14,) near the middle of each column: squares are taken from there, so that the
    variance of a column far from 0 does not drown in rounding."""
    sample = splats.select(slice(0, None, max(1, len(splats) // 64)))
    columns = _columns(sample)
    finite = np.where(np.isfinite(columns), columns, np.float32(np.nan))
    finite.sort(axis=1)  # NaN last
    known = np.isfinite(finite).sum(axis=1)
    middle = finite[np.arange(len(COLUMNS)), np.maximum(known, 1) // 2] if finite.shape[1] else np.zeros(14)
    return np.nan_to_num(middle).astype(np.float32)


def _columns(part: Splats) -> NDArray[np.float32]:
    return np.concatenate(
        (part.positions.T, part.log_scales.T, part.rotations.T, part.f_dc.T, part.opacity_logits[None])
    )


def scan_numpy(splats: Splats) -> Scan:
    """The pass in numpy: chunks of rows, copied column by column."""
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
            columns = _columns(splats.select(slice(start, start + _CHUNK)))
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
