"""Surface voxels to gaussians with the statistics of a real TRELLIS asset."""

from __future__ import annotations

from typing import Final

import numpy as np
from sn17_splats import Splats
from sn17_splats.convention import SH_C0

from sn17_trellis.procedural.voxels import Surface

PER_VOXEL: Final = 32

LOGIT_MEAN: Final = 3.86
LOGIT_STD: Final = 2.78
LOGIT_BETWEEN_VOXELS: Final = 0.70
"""Share of the logit variance that lies between voxels (measured on a real asset)."""
LOGIT_RANGE: Final = (-9.2, 15.9)

SIGMA_OF_VOXEL: Final = 0.42
"""Mean sigma as a share of the voxel's edge."""
MIN_LOG_SCALE: Final = float(np.log(9e-4))
COLOUR_NOISE: Final = 0.015


def gaussians_of(surface: Surface, rng: np.random.Generator) -> Splats:
    """``PER_VOXEL`` consecutive rows per voxel, y up, as views of one (n, 14) table."""
    voxels = len(surface)
    n = voxels * PER_VOXEL
    table = np.empty((n, 14), dtype=np.float32)
    rows = table.reshape(voxels, PER_VOXEL, 14)
    edge = 1.0 / surface.resolution

    corner = surface.coordinates.astype(np.float32) * np.float32(edge) - np.float32(0.5)
    rows[..., 0:3] = rng.random((voxels, PER_VOXEL, 3), dtype=np.float32)
    rows[..., 0:3] *= np.float32(edge)
    rows[..., 0:3] += corner[:, None, :]

    rows[..., 3:6] = (rng.random((voxels, PER_VOXEL, 3), dtype=np.float32) - 0.5) * np.float32(1.2)
    rows[..., 3:6] += np.float32(np.log(SIGMA_OF_VOXEL * edge))
    np.maximum(table[:, 3:6], np.float32(MIN_LOG_SCALE), out=table[:, 3:6])

    rows[..., 6:10] = rng.random((voxels, PER_VOXEL, 4), dtype=np.float32) - 0.5
    table[:, 6] = np.abs(table[:, 6]) + np.float32(0.2)
    table[:, 6:10] /= np.linalg.norm(table[:, 6:10], axis=1, keepdims=True)

    between = np.float32(LOGIT_STD * np.sqrt(LOGIT_BETWEEN_VOXELS))
    within = np.float32(LOGIT_STD * np.sqrt(1 - LOGIT_BETWEEN_VOXELS))
    logits = rng.standard_normal((voxels, PER_VOXEL), dtype=np.float32) * within
    logits += rng.standard_normal((voxels, 1), dtype=np.float32) * between + np.float32(LOGIT_MEAN)
    np.clip(logits, *LOGIT_RANGE, out=rows[..., 10])

    colour = surface.rgb[:, None, :] + COLOUR_NOISE * (
        2 * rng.random((voxels, PER_VOXEL, 3), dtype=np.float32) - 1
    )
    rows[..., 11:14] = (colour.astype(np.float32) - np.float32(0.5)) / np.float32(SH_C0)

    return Splats(
        positions=table[:, 0:3],
        log_scales=table[:, 3:6],
        rotations=table[:, 6:10],
        opacity_logits=table[:, 10],
        f_dc=table[:, 11:14],
    )
