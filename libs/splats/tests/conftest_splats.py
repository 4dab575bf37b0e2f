"""What the tests of this package share."""

from __future__ import annotations

import numpy as np
from sn17_splats import Splats

FIELDS = ("positions", "log_scales", "rotations", "opacity_logits", "f_dc", "f_rest")


def make_splats(n: int = 500, degree: int = 0, seed: int = 0) -> Splats:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rest = {0: None, 1: 9, 2: 24, 3: 45}[degree]
    return Splats(
        positions=normal(n, 3) * np.float32(0.2),
        log_scales=normal(n, 3) - np.float32(5),
        rotations=normal(n, 4),
        opacity_logits=normal(n) * np.float32(2.78) + np.float32(3.86),
        f_dc=normal(n, 3),
        f_rest=None if rest is None else normal(n, rest) * np.float32(0.2),
    )
