"""Gaussians on the image plane and what composites them.

For each pixel, in order of depth: alpha = min(0.999, a exp(-q / 2)), q being the squared Mahalanobis
distance of the pixel's centre; skipped below 1/255; the pixel is finished by the gaussian that would take
the remaining light to 1e-4 or less, which itself is not drawn (Kerbl et al. 2023, and gsplat 1.5's
rasteriser).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

MIN_ALPHA: Final = 1 / 255
MAX_ALPHA: Final = 0.999
LAST_LIGHT: Final = 1e-4

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """Gaussians on the image plane, nearest first: ``centres`` (n, 2) in pixels, ``conics`` (n, 3), the
    inverse covariance as xx xy yy, ``half_heights`` (n,) in pixels, ``reaches`` (n,), the squared
    Mahalanobis distance at which they end, ``alphas`` (n,), ``colours`` (n, 3), and ``index`` (n,), the rows
    of the model."""

    centres: F32
    conics: F32
    half_heights: F32
    reaches: F32
    alphas: F32
    colours: F32
    index: NDArray[np.int32]

    def with_alphas(self, alphas: F32) -> Footprints:
        """The same footprints with lower ``alphas`` (n,): they end nearer."""
        with np.errstate(divide="ignore"):
            reaches = np.maximum(2 * np.log(alphas / np.float32(MIN_ALPHA)), np.float32(0))
        halves = self.half_heights * np.sqrt(reaches / self.reaches)
        return replace(self, half_heights=halves, reaches=reaches, alphas=alphas)


class Rasteriser(Protocol):
    """Composites footprints into colour (size, size, 3) and remaining light (size, size)."""

    def __call__(self, footprints: Footprints, size: int) -> tuple[F32, F32]: ...
