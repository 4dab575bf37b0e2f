"""The pass, compiled."""

from __future__ import annotations

import numpy as np
from sn17_splats import Splats
from sn17_splats.convention import TRANSPARENT_LOGIT

from sn17_fixer.compiled import kernel
from sn17_fixer.scan.columns import BINS, BINS_PER_LOGIT, COLUMNS, HISTOGRAM_LOW, OPACITY, TAME, Scan, pivots

_WIDTH = len(COLUMNS)
_OPACITY = OPACITY
_LOW = np.float32(HISTOGRAM_LOW)
_BINS_PER_LOGIT = np.float32(BINS_PER_LOGIT)
_LAST_BIN = np.float32(BINS - 1)
_BLOCK = 256  # rows: 14 columns of them fit in the first-level cache
_BELOW = np.float32(TRANSPARENT_LOGIT)


def scan_numba(splats: Splats) -> Scan:
    """The pass, about as fast as memory gives the rows."""
    nonfinite = np.zeros((_WIDTH, 3), np.int64)
    bounds = np.empty((2, _WIDTH), np.float64)
    sums = np.zeros((2, _WIDTH), np.float64)
    histogram = np.zeros(BINS, np.int64)
    pivot = pivots(splats)
    transparent, alpha_total, alpha_squares, shortest, longest = _scan(
        splats.positions, splats.log_scales, splats.rotations, splats.f_dc, splats.opacity_logits,
        pivot, nonfinite, bounds, sums, histogram,
    )  # fmt: skip
    return Scan(
        len(splats), nonfinite, bounds[0], bounds[1], sums[0], pivot.astype(np.float64), sums[1], histogram,
        alpha_total, alpha_squares, transparent, (shortest, longest),
    )  # fmt: skip


# Bounds are taken on the bits: flipping the magnitude of negative floats orders them as integers, which
# compilers turn into vector code (they do not for float bounds), and puts infinities and NaN outermost.
_FLIP = np.int32(0x7FFFFFFF)
_TAME = np.float32(TAME).view(np.int32)
_INF = np.float32(np.inf).view(np.int32)


@kernel()
def _key_bounds(bits):  # type: ignore[no-untyped-def]
    low, high = np.int32(2147483647), np.int32(-2147483648)
    for i in range(len(bits)):
        key = np.int32(bits[i] ^ ((bits[i] >> 31) & _FLIP))
        low = np.int32(min(low, key))
        high = np.int32(max(high, key))
    return low, high


@kernel(reorder=True)
def _sums(values, pivot):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    squares = np.float32(0)
    for i in range(len(values)):
        distance = values[i] - pivot
        total += distance
        squares += distance * distance
    return total, squares


@kernel()
def _odd_column(values, pivot, sums, bounds, c, nonfinite):  # type: ignore[no-untyped-def]
    """A column with values that are not finite, or too large for single precision."""
    for i in range(len(values)):
        v = values[i]
        if abs(v) < np.inf:
            distance = np.float64(v) - np.float64(pivot)
            sums[0, c] += v
            sums[1, c] += distance * distance
            bounds[0, c] = min(bounds[0, c], v)
            bounds[1, c] = max(bounds[1, c], v)
        elif v == np.inf:
            nonfinite[c, 1] += 1
        elif v == -np.inf:
            nonfinite[c, 2] += 1
        else:
            nonfinite[c, 0] += 1


@kernel()
def _scan(  # type: ignore[no-untyped-def]
    positions, scales, rotations, colours, logits, pivot, nonfinite, bounds, sums, histogram
):
    bounds[0] = np.inf
    bounds[1] = -np.inf
    shortest, longest = np.inf, -np.inf
    transparent, alpha_total, alpha_squares = 0, 0.0, 0.0
    block = np.empty((_WIDTH, _BLOCK), np.float32)
    lengths = np.empty(_BLOCK, np.float32)
    key = np.empty(2, np.int32)
    bound = key.view(np.float32)
    for start in range(0, len(logits), _BLOCK):
        size = min(_BLOCK, len(logits) - start)
        for j in range(size):
            i = start + j
            for c in range(3):
                block[c, j] = positions[i, c]
                block[3 + c, j] = scales[i, c]
                block[10 + c, j] = colours[i, c]
            for c in range(4):
                block[6 + c, j] = rotations[i, c]
            block[13, j] = logits[i]
        for c in range(_WIDTH):
            values = block[c, :size]
            low, high = _key_bounds(values.view(np.int32))
            if low < -_TAME or high > _TAME:
                _odd_column(values, pivot[c], sums, bounds, c, nonfinite)
                continue
            key[0] = low ^ ((low >> 31) & _FLIP)
            key[1] = high ^ ((high >> 31) & _FLIP)
            bounds[0, c] = min(bounds[0, c], bound[0])
            bounds[1, c] = max(bounds[1, c], bound[1])
            total, squares = _sums(values, pivot[c])
            sums[0, c] += np.float64(total) + np.float64(pivot[c]) * size
            sums[1, c] += squares
        for j in range(size):
            w, x, y, z = block[6, j], block[7, j], block[8, j], block[9, j]
            lengths[j] = w * w + x * x + y * y + z * z
        low, high = _key_bounds(lengths[:size].view(np.int32))
        if low >= 0 and high < _INF:
            key[0] = low
            key[1] = high
            shortest = min(shortest, bound[0])
            longest = max(longest, bound[1])
        else:
            for j in range(size):
                if lengths[j] < np.inf:
                    shortest = min(shortest, lengths[j])
                    longest = max(longest, lengths[j])
        for j in range(size):
            v = block[_OPACITY, j]
            if v < _BELOW:
                transparent += 1
            if v == v:
                alpha = np.float32(1) / (np.float32(1) + np.exp(-v))
                alpha_total += alpha
                alpha_squares += alpha * alpha
                place = (v - _LOW) * _BINS_PER_LOGIT + np.float32(1)
                histogram[int(min(max(place, np.float32(0)), _LAST_BIN))] += 1
    return transparent, alpha_total, alpha_squares, shortest, longest
