"""One pass over all columns of a splat: the numbers that a diagnosis is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

from sn17_fixer.gates import TRANSPARENT_ALPHA

COLUMNS: Final = (
    "x", "y", "z", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
    "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
)  # fmt: skip
BINS_PER_LOGIT: Final = 64
HISTOGRAM_LOW: Final = -16
#: Bins of 1/64 from -16 to 16, with one at each end for what lies beyond, infinities included.
BINS: Final = 32 * BINS_PER_LOGIT + 2
#: logit(1e-4), logit(1e-3) and their mirror images: where a clamp before a second logit ends up.
CLAMP_VALUES: Final = (-9.21034, -6.90675, 6.90675, 9.21034)
#: Single precision moves logit(0.9999) by 2e-4.
CLAMP_TOLERANCE: Final = 4e-4
ZERO_QUATERNION: Final = 1e-6

_CHUNK: Final = 8192
_SAMPLE: Final = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Sums over all gaussians; column order is that of ``COLUMNS``.

    ``nonfinite`` (14, 3) counts NaN, +inf, -inf. ``minimum``, ``maximum``, ``total`` and ``squares`` (14,)
    are of the finite values. ``histogram`` (BINS,) is of the logits. ``alpha_total`` and ``alpha_squares``
    take infinite logits as 0 and 1.
    """

    count: int
    nonfinite: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    histogram: NDArray[np.int64]
    clamped: NDArray[np.int64]
    alpha_total: float
    alpha_squares: float
    transparent: int
    unit_interval: int
    bad_rows: int
    zero_rotations: int
    identity_rotations: int
    norm_min: float
    norm_max: float
    outside: int


class Scanner(Protocol):
    """An implementation of the pass; ``box`` (2, 3) is the generous box that strays lie outside of."""

    def __call__(self, splats: Splats, box: NDArray[np.float32]) -> Scan: ...


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


def scan_numpy(splats: Splats, box: NDArray[np.float32]) -> Scan:
    """The pass in numpy: chunks of rows, copied column by column so that they stay in the cache."""
    n, width = len(splats), len(COLUMNS)
    nonfinite = np.zeros((width, 3), np.int64)
    minimum, maximum = np.full(width, np.inf), np.full(width, -np.inf)
    total, squares = np.zeros(width), np.zeros(width)
    histogram, clamped = np.zeros(BINS, np.int64), np.zeros(len(CLAMP_VALUES), np.int64)
    alpha_total = alpha_squares = 0.0
    transparent = unit_interval = bad_rows = zero = identity = outside = 0
    norm_min, norm_max = np.inf, -np.inf
    with np.errstate(all="ignore"):
        for start in range(0, n, _CHUNK):
            part = splats.select(slice(start, start + _CHUNK))
            columns = np.concatenate(
                (
                    part.positions.T,
                    part.log_scales.T,
                    part.rotations.T,
                    part.f_dc.T,
                    part.opacity_logits[None],
                )
            )
            finite = np.isfinite(columns)
            if finite.all():
                kept, low, high = columns, columns, columns
            else:
                nonfinite[:, 0] += np.isnan(columns).sum(axis=1)
                nonfinite[:, 1] += (columns == np.inf).sum(axis=1)
                nonfinite[:, 2] += (columns == -np.inf).sum(axis=1)
                kept = np.where(finite, columns, 0)
                low, high = np.where(finite, columns, np.inf), np.where(finite, columns, -np.inf)
            np.minimum(minimum, low.min(axis=1), out=minimum)
            np.maximum(maximum, high.max(axis=1), out=maximum)
            total += kept.sum(axis=1, dtype=np.float64)
            squares += np.einsum("ij,ij->i", kept, kept, dtype=np.float64)

            logits = columns[-1]
            known = logits[~np.isnan(logits)]
            bins = np.floor((known - HISTOGRAM_LOW) * BINS_PER_LOGIT).clip(-1, BINS - 2).astype(np.intp) + 1
            histogram += np.bincount(bins, minlength=BINS)
            alphas = 1 / (1 + np.exp(-known))
            alpha_total += float(alphas.sum(dtype=np.float64))
            alpha_squares += float(np.einsum("i,i->", alphas, alphas, dtype=np.float64))
            transparent += int(np.count_nonzero(alphas < TRANSPARENT_ALPHA))
            unit_interval += int(np.count_nonzero((logits >= 0) & (logits <= 1)))
            for i, value in enumerate(CLAMP_VALUES):
                clamped[i] += np.count_nonzero(np.abs(logits - value) <= CLAMP_TOLERANCE)

            quaternions = columns[6:10]
            norms = np.sqrt((quaternions * quaternions).sum(axis=0))
            zeros = norms < ZERO_QUATERNION
            zero += int(np.count_nonzero(zeros))
            identity += int(np.count_nonzero((quaternions[0] == 1) & (quaternions[1:] == 0).all(axis=0)))
            norm_min = min(norm_min, float(np.fmin.reduce(norms, initial=np.inf)))
            norm_max = max(norm_max, float(np.fmax.reduce(norms, initial=-np.inf)))
            # A log-scale of -inf is a flat gaussian, not a broken one.
            fine = np.asarray(finite[:13].all(axis=0)) if finite[3:6].all() else _fine(columns, finite)
            bad_rows += int(np.count_nonzero(~fine | zeros))
            positions = columns[:3]
            inside = (positions >= box[0][:, None]) & (positions <= box[1][:, None])
            outside += int(np.count_nonzero(finite[:3].all(axis=0) & ~inside.all(axis=0)))
    return Scan(
        n, nonfinite, minimum, maximum, total, squares, histogram, clamped, alpha_total, alpha_squares,
        transparent, unit_interval, bad_rows, zero, identity, norm_min, norm_max, outside,
    )  # fmt: skip


def _fine(columns: NDArray[np.float32], finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    usable = finite[:13].copy()
    usable[3:6] |= columns[3:6] == -np.inf
    return np.asarray(usable.all(axis=0))
