"""Splats that tests of tables share."""

from __future__ import annotations

import numpy as np
from sn17_splats import Splats


def cloud(seed: int) -> Splats:
    """500 gaussians, the same for the same seed."""
    rng = np.random.default_rng(seed)
    shapes = ((500, 3), (500, 3), (500, 4), (500,), (500, 3))
    return Splats(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))
