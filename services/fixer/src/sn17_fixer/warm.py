"""Pay for compilation and first touches before the first request does."""

from __future__ import annotations

import numpy as np
from sn17_splats import Splats, encode_spz, read_ply, write_ply

from sn17_fixer.policy import fix
from sn17_fixer.render.check import check_render


def warm_up() -> None:
    """Run the whole path once on a small made-up splat, as the views that a PLY gives, and the renderer."""
    splats = read_ply(write_ply(small_ball()))
    encode_spz(fix(splats).splats)
    check_render(splats)


def small_ball(n: int = 320) -> Splats:
    """A ball of ``n`` opaque gaussians, the same on every call."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 3)).astype(np.float32)
    return Splats(
        positions=points * np.float32(0.4) / np.linalg.norm(points, axis=1, keepdims=True),
        log_scales=np.full((n, 3), -4, np.float32),
        rotations=rng.normal(size=(n, 4)).astype(np.float32),
        opacity_logits=np.full(n, 4, np.float32),
        f_dc=rng.normal(size=(n, 3)).astype(np.float32),
    )
