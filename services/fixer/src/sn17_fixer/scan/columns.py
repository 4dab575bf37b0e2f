"""What a scan returns: columns, bins and the pivots that every implementation of the pass starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

COLUMNS: Final = (
    "x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
)  # fmt: skip
POSITIONS: Final = slice(0, 3)
SCALES: Final = slice(3, 6)
ROTATIONS: Final = slice(6, 10)
COLOURS: Final = slice(10, 13)
OPACITY: Final = 13

BINS_PER_LOGIT: Final = 64
HISTOGRAM_LOW: Final = -16
#: Bins of 1/64 from -16 to 16, with one at each end for what lies beyond, infinities included.
BINS: Final = 32 * BINS_PER_LOGIT + 2

#: Up to here squares can be summed in single precision.
TAME: Final = 1e15


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


def pivots(splats: Splats) -> NDArray[np.float32]:
    """One finite value (14,) near the middle of each column: squares are taken from there, so that the
    variance of a column far from 0 does not drown in rounding."""
    sample = splats.select(slice(0, None, max(1, len(splats) // 64)))
    columns = columns_of(sample)
    finite = np.where(np.isfinite(columns), columns, np.float32(np.nan))
    finite.sort(axis=1)  # NaN last
    known = np.isfinite(finite).sum(axis=1)
    middle = finite[np.arange(len(COLUMNS)), np.maximum(known, 1) // 2] if finite.shape[1] else np.zeros(14)
    return np.nan_to_num(middle).astype(np.float32)


def columns_of(part: Splats) -> NDArray[np.float32]:
    """A copy (14, n), one column a row, in the order of ``COLUMNS``."""
    return np.concatenate(
        (part.positions.T, part.log_scales.T, part.rotations.T, part.f_dc.T, part.opacity_logits[None])
    )
