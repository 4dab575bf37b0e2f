"""Splats for the scorer's tests, made from the referee's own solids in the generator's manner."""

import base64

import numpy as np
from sn17_devnet.solids import inside
from sn17_scene import layout, lit, parse
from sn17_splats import Splats, encode_spz
from sn17_splats.convention import SH_C0


def surface_splats(prompt, rng, *, grid=64, per_voxel=32, limit=None):
    """32 gaussians in every surface voxel of a 64^3 grid, opacities as TRELLIS has them."""
    axis = (np.arange(grid, dtype=np.float32) + 0.5) / grid - 0.5
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    solid = np.zeros((grid,) * 3, dtype=bool)
    colour = np.zeros((grid, grid, grid, 3), dtype=np.float32)
    for part in layout(parse(prompt)):
        local = ((cells - part.centre) / part.half_size).astype(np.float32)
        within = inside(part.shape, local) & (np.abs(local).max(axis=-1) <= 1)
        fresh = within & ~solid
        colour[fresh] = lit(part.rgb, local[fresh])
        solid |= within
    padded = np.pad(solid, 1)
    core = solid.copy()
    for way in range(3):
        for shift in (-1, 1):
            core &= np.roll(padded, shift, way)[1:-1, 1:-1, 1:-1]
    shell = np.nonzero(solid & ~core)
    centres = cells[shell].repeat(per_voxel, axis=0)
    rgb = colour[shell].repeat(per_voxel, axis=0)
    if limit is not None and len(centres) > limit:
        kept = rng.choice(len(centres), limit, replace=False)
        centres, rgb = centres[kept], rgb[kept]
    n = len(centres)
    f32 = np.float32
    return Splats(
        positions=(centres + rng.uniform(-0.5, 0.5, (n, 3)) / grid).astype(f32),
        log_scales=np.log(rng.uniform(0.2, 0.5, (n, 3)) / grid).astype(f32),
        rotations=rng.normal(size=(n, 4)).astype(f32),
        opacity_logits=rng.normal(3.86, 2.78, n).astype(f32),
        f_dc=((rgb + rng.normal(0, 0.01, (n, 3)) - 0.5) / SH_C0).astype(f32),
    )


def results(splats):
    """The ``results`` field of a submission."""
    return base64.b64encode(encode_spz(splats)).decode()
