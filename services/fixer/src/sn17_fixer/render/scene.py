"""From a splat to pixels: the validator's normalisation, projection and the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import SplatError, Splats, alpha
from sn17_splats.convention import SH_C0

from sn17_fixer.render.camera import Camera
from sn17_fixer.render.footprints import MIN_ALPHA, Footprints
from sn17_fixer.render.raster import default_rasteriser
from sn17_fixer.rows import good_rows
from sn17_fixer.steps.placement import VALIDATOR_EXTENT

NEAR: Final = 0.01
#: Added to the variance of every footprint, in square pixels: no gaussian is thinner than a pixel.
DILATION: Final = 0.3
#: Centres further outside the picture than this share of it are projected as if they were there.
_MARGIN: Final = 0.3
_CHUNK: Final = 8192
_WIDEST: Final = np.float32(1e6)

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Gaussians ready to project: ``positions`` (3, n), ``covariance`` (6, n) as xx xy xz yy yz zz,
    ``alphas`` (n,) in 0..1, ``colours`` (n, 3) that may lie outside 0..1."""

    positions: F32
    covariance: F32
    alphas: F32
    colours: F32

    def with_alphas(self, alphas: F32) -> Model:
        """The same geometry with other opacities."""
        return Model(self.positions, self.covariance, alphas, self.colours)


def validator_model(splats: Splats) -> Model:
    """The splat as the validator normalises it before it renders.

    The largest side of the bounding box becomes 1.5 (factor k), the mean of all coordinates, one number, is
    subtracted from every axis, and alpha is divided by k and clipped at 1. Rows that are not finite
    are left out. Raises :class:`SplatError` where nothing is left.
    """
    good = good_rows(splats)
    if not good.all():
        splats = splats.select(good)
    if not len(splats):
        raise SplatError("no gaussian can be drawn: all of them hold values that are not numbers")
    positions = splats.positions.T.astype(np.float32, order="C")
    extent = float((positions.max(axis=1).astype(np.float64) - positions.min(axis=1)).max())
    k = VALIDATOR_EXTENT / extent if 0 < extent < np.inf else 1.0
    positions -= np.float32(positions.mean(dtype=np.float64))
    positions *= np.float32(k)
    alphas = np.nan_to_num(alpha(splats.opacity_logits), nan=0.0) / np.float32(k)
    return Model(
        positions,
        _covariance(splats, np.float32(k)),
        np.minimum(alphas, np.float32(1)).astype(np.float32, copy=False),
        np.float32(0.5) + np.float32(SH_C0) * splats.f_dc,
    )


def _covariance(splats: Splats, k: np.float32) -> F32:
    """k^2 R S S^T R^T (Kerbl et al. 2023, "3D Gaussian Splatting", equation 6), upper triangle (6, n)."""
    out = np.empty((6, len(splats)), np.float32)
    for start in range(0, len(splats), _CHUNK):
        part = slice(start, start + _CHUNK)
        quaternions = np.ascontiguousarray(splats.rotations[part].T)
        w, x, y, z = quaternions / np.sqrt(np.square(quaternions).sum(axis=0))
        with np.errstate(over="ignore"):
            sigmas = np.exp(np.ascontiguousarray(splats.log_scales[part].T)) * k
        a, b, c = np.square(np.minimum(sigmas, _WIDEST))
        rows = (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
        )
        for target, (i, j) in zip(out, ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)), strict=True):
            p, q = rows[i], rows[j]
            target[part] = p[0] * q[0] * a + p[1] * q[1] * b + p[2] * q[2] * c
    return out


def project(model: Model, camera: Camera) -> Footprints:
    """Footprints on the image plane, nearest first.

    The covariance goes through the Jacobian of the perspective (Zwicker et al. 2001, "EWA volume splatting";
    the clamping of far-off centres and the dilation are those of gsplat 1.5, Ye et al. 2024, section 2).
    Gaussians behind the near plane, off the picture, or too transparent to show are left out.
    """
    count = len(model.alphas)
    with np.errstate(all="ignore"):
        parts = [_project(model, camera, slice(i, i + _CHUNK)) for i in range(0, count, _CHUNK)]
    columns = [list(column) for column in zip(*parts, strict=True)]
    del parts
    order = np.argsort(np.concatenate(columns.pop(0)), kind="stable")
    # One column after the other, so that none is held twice for longer than it takes.
    index, centres, conics, half_heights, reaches = (
        np.concatenate(columns.pop(0))[order] for _ in range(len(columns))
    )
    return Footprints(
        centres, conics, half_heights, reaches, model.alphas[index], model.colours[index], index
    )


def _project(model: Model, camera: Camera, rows: slice) -> tuple[NDArray[Any], ...]:
    """One chunk, small enough that what passes by stays in the cache; depth and row first."""
    rotation, focal, size = camera.rotation, np.float32(camera.focal), camera.size
    x, y, z = rotation @ model.positions[:, rows] + camera.translation[:, None]
    covariance, alphas = model.covariance[:, rows], model.alphas[rows]
    limit = np.float32((1 + 2 * _MARGIN) * size / 2 / camera.focal)
    inverse = 1 / np.where(z > NEAR, z, np.float32(np.nan))
    u, v = x * inverse, y * inverse
    cu, cv = np.clip(u, -limit, limit), np.clip(v, -limit, limit)
    # Rows of J W: the Jacobian times the rotation, one (3, n) for each image axis.
    scale = focal * inverse
    first = [scale * (rotation[0, i] - cu * rotation[2, i]) for i in range(3)]
    second = [scale * (rotation[1, i] - cv * rotation[2, i]) for i in range(3)]
    xx = _quadratic(covariance, first, first) + np.float32(DILATION)
    xy = _quadratic(covariance, first, second)
    yy = _quadratic(covariance, second, second) + np.float32(DILATION)
    determinant = xx * yy - xy * xy
    # The footprint ends where alpha exp(-reach / 2) falls below what is drawn at all.
    reach = 2 * np.log(alphas / np.float32(MIN_ALPHA))
    half_x, half_y = np.sqrt(reach * xx), np.sqrt(reach * yy)
    mean_x, mean_y = u * focal + np.float32(size / 2), v * focal + np.float32(size / 2)
    shown = (determinant > 0) & (reach > 0)
    shown &= (mean_x + half_x > 0) & (mean_x - half_x < size)
    shown &= (mean_y + half_y > 0) & (mean_y - half_y < size)
    kept = np.flatnonzero(shown)
    over = 1 / determinant[kept]
    return (
        z[kept],
        (kept + rows.start).astype(np.int32),
        np.stack([mean_x[kept], mean_y[kept]], axis=1),
        np.stack([yy[kept] * over, -xy[kept] * over, xx[kept] * over], axis=1),
        half_y[kept],
        reach[kept],
    )


def _quadratic(covariance: F32, p: list[F32], q: list[F32]) -> F32:
    xx, xy, xz, yy, yz, zz = covariance
    out: F32 = (
        p[0] * (xx * q[0] + xy * q[1] + xz * q[2])
        + p[1] * (xy * q[0] + yy * q[1] + yz * q[2])
        + p[2] * (xz * q[0] + yz * q[1] + zz * q[2])
    )
    return out


def render(model: Model, camera: Camera, *, background: float = 1.0) -> tuple[F32, F32]:
    """The picture (size, size, 3), not yet clipped to 0..1, and the accumulated alpha (size, size)."""
    colour, transmittance = default_rasteriser()(project(model, camera), camera.size)
    return colour + np.float32(background) * transmittance[:, :, None], 1 - transmittance


def to_bytes(picture: F32) -> NDArray[np.uint8]:
    """Clip and cut to 8 bits, as the validator does."""
    return (np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)
