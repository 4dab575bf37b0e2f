"""What one asset shows, in numbers; pure functions on arrays."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats, alpha

VIEW: Final = 96


def logit_std(splats: Splats) -> float | None:
    """Standard deviation of the finite opacity logits."""
    logits = np.asarray(splats.opacity_logits, dtype=np.float64)
    finite = logits[np.isfinite(logits)]
    return float(finite.std()) if finite.size else None


def front_opacity(splats: Splats, low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Opacity of the front view, shape (VIEW, VIEW), of centres only: 1 - product of (1 - alpha) in a pixel.

    ``low`` and ``high``, shape (3,), frame the view, so that two splats can be laid over each other.
    """
    positions = np.asarray(splats.positions, dtype=np.float64)
    alphas = np.nan_to_num(np.asarray(alpha(splats.opacity_logits), dtype=np.float64), nan=0.0)
    span = np.maximum(high - low, 1e-9)
    with np.errstate(invalid="ignore"):
        cells = np.floor((positions[:, :2] - low[:2]) / span[:2] * VIEW)
    inside = np.isfinite(cells).all(axis=1) & (cells >= 0).all(axis=1) & (cells <= VIEW).all(axis=1)
    pixels = np.minimum(cells[inside].astype(np.int64), VIEW - 1)
    density = -np.log1p(-np.minimum(alphas[inside], 1 - 1e-12))
    total = np.bincount(pixels[:, 1] * VIEW + pixels[:, 0], weights=density, minlength=VIEW * VIEW)
    return np.asarray(1 - np.exp(-total)).reshape(VIEW, VIEW)


def coverage_kept(before: Splats, after: Splats) -> float:
    """Mean front opacity of ``after`` where ``before`` shows something, as a share of that of ``before``.

    1 is kept; a fix that drops or fades what was visible lowers it. 1 when nothing was visible before.
    """
    positions = np.asarray(before.positions, dtype=np.float64)
    finite = positions[np.isfinite(positions).all(axis=1)]
    if not len(finite):
        return 1.0
    low, high = np.quantile(finite, 0.005, axis=0), np.quantile(finite, 0.995, axis=0)
    seen = front_opacity(before, low, high)
    visible = seen > 0.5
    if not visible.any():
        return 1.0
    return float(front_opacity(after, low, high)[visible].mean() / seen[visible].mean())
