"""Which gaussians can be drawn at all."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

ZERO_QUATERNION: Final = 1e-6


def good_rows(splats: Splats) -> NDArray[np.bool_]:
    """Mask (n,) of gaussians with finite position, colour and rotation, a rotation that is not zero, and
    scales that are numbers below infinity. A log-scale of -inf is a flat gaussian, not a broken one."""
    with np.errstate(over="ignore", invalid="ignore"):
        good = np.isfinite(splats.positions).all(axis=1)
        good &= (splats.log_scales < np.inf).all(axis=1)
        good &= np.isfinite(splats.f_dc).all(axis=1)
        squared = np.square(splats.rotations).sum(axis=1)
        good &= (squared >= ZERO_QUATERNION**2) & (squared < np.inf)
    return np.asarray(good)
