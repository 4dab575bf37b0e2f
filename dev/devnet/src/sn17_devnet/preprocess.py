"""What the validation service does to a submission before it looks at it: decode, check, normalise.

The real service's behaviour without its neural weights, in its order, quirks included.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Limits, SplatError, Splats, decode_spz, read_ply
from sn17_splats.convention import MAX_TRANSPARENT_SHARE, MIN_GAUSSIANS, SH_C0, TRANSPARENT_ALPHA

Array = NDArray[np.float32]

NORMAL_EXTENT: Final = 1.5
"""Every model is scaled until its largest bounding-box edge has this length."""


class IntakeError(ValueError):
    """The submission gets a score of 0 without being looked at; the message is the reason in a word."""


@dataclass(frozen=True, slots=True)
class Model:
    """A normalised submission: what would be drawn.

    Shapes: ``points`` (n, 3), ``rgb`` (n, 3) clipped to [0, 1], ``alpha`` (n,) after the service's
    correction, ``sigma`` (n,) the largest standard deviation. The largest edge of the bounding box is 1.5.
    """

    points: Array
    rgb: Array
    alpha: Array
    sigma: Array


def decode(data: str, *, compression: int = 2, limits: Limits | None = None) -> Splats:
    """Read the ``results`` of a submission: base64 of the subnet's SPZ (2) or of a plain PLY (0).

    Raises:
        IntakeError: it is neither.
    """
    limits = limits or Limits()
    try:
        raw = base64.b64decode(data, validate=True)
        return decode_spz(raw, limits) if compression == 2 else read_ply(raw, limits)
    except (binascii.Error, SplatError, ValueError) as error:
        raise IntakeError(f"undecodable: {error}") from error


def check(splats: Splats) -> None:
    """Apply the checks that need no rendering.

    Raises:
        IntakeError: the first one that fails.
    """
    if len(splats) < MIN_GAUSSIANS:
        raise IntakeError(f"{len(splats)} gaussians, {MIN_GAUSSIANS} needed")
    # The service compares the first three rows where it meant the three columns.
    if bool((splats.positions[:3] == 1.0).all(axis=1).any()):
        raise IntakeError("a point at (1, 1, 1) among the first three")
    transparent = float(np.mean(_sigmoid(splats.opacity_logits) < TRANSPARENT_ALPHA))
    if transparent > MAX_TRANSPARENT_SHARE:
        raise IntakeError(f"{transparent:.0%} of the gaussians are transparent")
    if bool((splats.rotations == np.array([1, 0, 0, 0], dtype=np.float32)).all()):
        raise IntakeError("all rotations are the identity")


def normalise(splats: Splats) -> Model:
    """Scale, shift and correct the opacity as the service does before it renders.

    Raises:
        IntakeError: the extent is zero or not finite, so that nothing would be drawn.
    """
    points = np.asarray(splats.positions, dtype=np.float32)
    if not bool(np.isfinite(points).all()):
        raise IntakeError("positions that are not finite")
    extent = float((points.max(axis=0) - points.min(axis=0)).max())
    if not extent > 0.0 or not np.isfinite(extent):
        raise IntakeError("no extent")
    scale = NORMAL_EXTENT / extent
    # One number for all three axes: a model off centre in one axis is drawn off centre in all.
    centred = (points - np.float32(points.mean(dtype=np.float64))) * np.float32(scale)
    log_scales = np.asarray(splats.log_scales, dtype=np.float32).max(axis=1)
    with np.errstate(over="ignore"):
        sigma = np.exp(np.nan_to_num(log_scales, nan=-20.0)) * np.float32(scale)
    # Every opacity is divided by the scale: small models come out thinner.
    alpha = np.clip(_sigmoid(splats.opacity_logits) / scale, 0.0, 1.0).astype(np.float32)
    rgb = 0.5 + SH_C0 * np.nan_to_num(np.asarray(splats.f_dc, dtype=np.float32))
    return Model(centred, np.clip(rgb, 0.0, 1.0), np.nan_to_num(alpha), sigma.astype(np.float32))


def _sigmoid(logits: Array) -> Array:
    with np.errstate(over="ignore"):
        return (1.0 / (1.0 + np.exp(-np.asarray(logits, dtype=np.float32)))).astype(np.float32)
