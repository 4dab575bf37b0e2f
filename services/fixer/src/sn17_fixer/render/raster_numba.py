"""Front-to-back compositing of footprints, compiled: one gaussian after the other, row by row."""

from __future__ import annotations

import math

import numpy as np

from sn17_fixer.compiled import kernel
from sn17_fixer.render.footprints import F32, LAST_LIGHT, MAX_ALPHA, MIN_ALPHA, Footprints

_HALF = np.float32(0.5)
_MIN = np.float32(MIN_ALPHA)
_MAX = np.float32(MAX_ALPHA)
_LAST = np.float32(LAST_LIGHT)
_ZERO = np.float32(0)
_ONE = np.float32(1)


def rasterise_numba(footprints: Footprints, size: int) -> tuple[F32, F32]:
    """Composite on one thread, without the interpreter's lock."""
    colour = np.zeros((size, size, 3), np.float32)
    light = np.ones((size, size), np.float32)
    _composite(
        footprints.centres, footprints.conics, footprints.half_heights, footprints.reaches,
        footprints.alphas, footprints.colours, colour, light,
    )  # fmt: skip
    # Finished pixels carry their light with the sign turned.
    return colour, np.abs(light)


@kernel()
def _composite(centres, conics, half_heights, reaches, alphas, colours, colour, light):  # type: ignore[no-untyped-def]
    size = light.shape[0]
    for i in range(len(alphas)):
        xx, xy, yy = conics[i, 0], conics[i, 1], conics[i, 2]
        x, y, reach = centres[i, 0], centres[i, 1], reaches[i]
        peak = alphas[i]
        red, green, blue = colours[i, 0], colours[i, 1], colours[i, 2]
        top = max(0, int(np.ceil(max(y - half_heights[i] - _HALF, np.float32(-1)))))
        bottom = min(size, int(np.floor(min(y + half_heights[i] - _HALF, np.float32(size)))) + 1)
        for row in range(top, bottom):
            dy = np.float32(row) + _HALF - y
            # Columns where xx dx^2 + 2 xy dx dy + yy dy^2 <= reach.
            middle = -xy * dy / xx
            inside = middle * middle - (yy * dy * dy - reach) / xx
            if not inside > _ZERO:
                continue
            half = math.sqrt(inside)
            left = max(0, int(np.ceil(max(x + middle - half - _HALF, np.float32(-1)))))
            right = min(size, int(np.floor(min(x + middle + half - _HALF, np.float32(size)))) + 1)
            for column in range(left, right):
                before = light[row, column]
                if before < _ZERO:
                    continue
                dx = np.float32(column) + _HALF - x
                power = _HALF * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
                alpha = min(_MAX, peak * math.exp(-power))
                if power < _ZERO or alpha < _MIN:
                    continue
                after = before * (_ONE - alpha)
                if after <= _LAST:
                    light[row, column] = -before
                    continue
                weight = before * alpha
                colour[row, column, 0] += weight * red
                colour[row, column, 1] += weight * green
                colour[row, column, 2] += weight * blue
                light[row, column] = after
