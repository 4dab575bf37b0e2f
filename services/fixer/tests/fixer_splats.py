"""Splats that the tests of this package share."""

from __future__ import annotations

import math

import numpy as np
from sn17_splats import Splats

FIELDS = ("positions", "log_scales", "rotations", "opacity_logits", "f_dc")


def shell(
    n: int = 9600, *, seed: int = 0, mean: float = 3.86, std: float = 2.78, trellis: bool = True
) -> Splats:
    """A ball-shaped shell; with ``trellis`` it carries the generator's fingerprint."""
    rng = np.random.default_rng(seed)
    if trellis:
        centres = np.repeat(_on_sphere(rng, n // 32), 32, axis=0) * 0.4
        points = centres + rng.uniform(-0.02, 0.02, (n, 3))
    else:
        points = _on_sphere(rng, n) * 0.4
    scales = rng.normal(-4.2, 0.3, (n, 3))
    if trellis:
        scales[0, 0] = math.log(9e-4)
    logits = rng.normal(mean, std, n)
    return Splats(
        points.astype(np.float32),
        scales.astype(np.float32),
        rng.normal(size=(n, 4)).astype(np.float32),
        logits.astype(np.float32),
        rng.normal(size=(n, 3)).astype(np.float32),
    )


def _on_sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    points = rng.normal(size=(n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def assert_same_bits(left: Splats, right: Splats, *names: str) -> None:
    for name in names or FIELDS:
        a, b = (np.ascontiguousarray(getattr(s, name)).view(np.int32) for s in (left, right))
        np.testing.assert_array_equal(a, b, err_msg=name)
