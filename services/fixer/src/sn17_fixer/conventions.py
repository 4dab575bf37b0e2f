"""Files whose columns follow another exporter's convention: recognised by what no file of ours can be.

A column is taken for another convention only where reading it as ours makes no object at all, or where its
bounds are those of the other convention exactly. What is not certain is left alone.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sn17_splats import Splats
from sn17_splats.convention import SH_C0

from sn17_fixer.model import Reason, Repair, Step
from sn17_fixer.scan.columns import COLOURS, POSITIONS, ROTATIONS, SCALES, Scan

#: No object consists of gaussians whose thinnest axes are all wider than this share of it.
WIDE: Final = 0.05
#: Colours in 0..1 reach both ends of it to within this; coefficients of the same object lie in -1.8..1.8.
ENDS: Final = 0.02
#: Coefficients beyond it are brighter than white four times over; 8-bit colours are.
BYTES_BEYOND: Final = 8.0
#: So few quaternions may share a sign by chance (1 in 10^9).
LEAST_ROTATIONS: Final = 30


def foreign_conventions(scan: Scan) -> tuple[Reason, ...]:
    """Which columns hold activated values or another order, by the bounds of one pass."""
    if scan.count == 0 or scan.nonfinite.any():
        return ()
    found = []
    if _linear_scales(scan):
        found.append(Reason.LINEAR_SCALES)
    if _activated_colours(scan):
        found.append(Reason.ACTIVATED_COLOURS)
    if _xyzw(scan):
        found.append(Reason.ROTATIONS_XYZW)
    return tuple(found)


def _linear_scales(scan: Scan) -> bool:
    # As logarithms every gaussian would be a blob; as lengths all fit into the object.
    low, high = float(scan.minimum[SCALES].min()), float(scan.maximum[SCALES].max())
    extent = float((scan.maximum[POSITIONS] - scan.minimum[POSITIONS]).max())
    return low > 0 and high <= extent and float(np.exp(min(low, 50.0))) > WIDE * extent


def _activated_colours(scan: Scan) -> bool:
    low, high = float(scan.minimum[COLOURS].min()), float(scan.maximum[COLOURS].max())
    in_unit = low <= ENDS and 1 - ENDS <= high <= 1
    return low >= 0 and (in_unit or BYTES_BEYOND < high <= 255)


def _xyzw(scan: Scan) -> bool:
    # Writers that fix the sign of a quaternion make its real part positive: ours is the first column.
    low = scan.minimum[ROTATIONS]
    return scan.count >= LEAST_ROTATIONS and bool(
        low[3] >= 0 and low[0] < 0 and scan.maximum[ROTATIONS][3] > 0
    )


def logarithms(splats: Splats) -> Repair:
    """Scales given as lengths become logarithms: exact."""
    return Repair(
        splats.replace(log_scales=np.log(splats.log_scales)), Step("logarithms_of_scales", len(splats))
    )


def coefficients(splats: Splats) -> Repair:
    """Colours given in 0..1 or 0..255 become coefficients of the constant harmonic: exact."""
    top = np.float32(1.0 if splats.f_dc.max() <= 1 else 255.0)
    f_dc = (splats.f_dc / top - np.float32(0.5)) / np.float32(SH_C0)
    return Repair(
        splats.replace(f_dc=f_dc), Step("coefficients_of_colours", len(splats), {"range": float(top)})
    )


def real_part_first(splats: Splats) -> Repair:
    """Quaternions x, y, z, w become w, x, y, z: exact."""
    return Repair(
        splats.replace(rotations=np.ascontiguousarray(np.roll(splats.rotations, 1, axis=1))),
        Step("reorder_rotations", len(splats)),
    )
