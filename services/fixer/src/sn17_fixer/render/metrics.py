"""How much two pictures differ."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_WINDOW: Final = 7
_C1: Final = (0.01 * 255) ** 2
_C2: Final = (0.03 * 255) ** 2


def psnr(first: U8, second: U8) -> float:
    """Peak signal-to-noise ratio in dB of two 8-bit pictures of one shape; infinite where they are equal."""
    error = float(np.mean(np.square(first.astype(np.float64) - second)))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def ssim(first: U8, second: U8) -> float:
    """Structural similarity (Wang et al. 2004) of two pictures (h, w, 3): mean over all 7 x 7 windows and
    channels, uniform weights, sample covariance."""
    x, y = first.astype(np.float64), second.astype(np.float64)
    n = _WINDOW**2
    mean_x, mean_y = _windows(x) / n, _windows(y) / n
    unbiased = n / (n - 1)
    var_x = (_windows(x * x) / n - mean_x**2) * unbiased
    var_y = (_windows(y * y) / n - mean_y**2) * unbiased
    cov = (_windows(x * y) / n - mean_x * mean_y) * unbiased
    top = (2 * mean_x * mean_y + _C1) * (2 * cov + _C2)
    return float(np.mean(top / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))))


def _windows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over all 7 x 7 windows."""
    padded = np.pad(values, ((1, 0), (1, 0), (0, 0))).cumsum(axis=0).cumsum(axis=1)
    w = _WINDOW
    return np.asarray(padded[w:, w:] - padded[:-w, w:] - padded[w:, :-w] + padded[:-w, :-w])
