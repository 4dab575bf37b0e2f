"""Learn the reference of :mod:`sn17_fixer.reference` from one's own healthy assets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from sn17_splats import Splats
from sn17_splats.convention import TRANSPARENT_LOGIT

from sn17_fixer.diagnosis import diagnose
from sn17_fixer.policy import SATURATED_LOGIT
from sn17_fixer.reference import Reference

_ROUNDS: Final = 200
_SETTLED: Final = 1e-6


def calibrate(assets: Sequence[Splats]) -> Reference:
    """The mean over the assets of their logits' mean and standard deviation.

    Infinite logits are what 8-bit alpha or single precision cut off; each asset is fitted with a normal
    distribution censored there. Raises :class:`ValueError` for no assets, and for one that does not carry the
    generator's fingerprint or is damaged: its numbers would teach the wrong thing.
    """
    if not assets:
        raise ValueError("calibrate needs at least one asset")
    fits = []
    for number, splats in enumerate(assets, start=1):
        diagnosis = diagnose(splats, reference=Reference(mean=-math.inf, std=0.0, assets=0))
        if not diagnosis.fingerprint.is_trellis:
            raise ValueError(f"asset {number} does not carry the generator's fingerprint")
        if diagnosis.verdict != "healthy":
            raise ValueError(f"asset {number} is {diagnosis.verdict}: {', '.join(diagnosis.reasons)}")
        fits.append(fit_censored(splats))
    means, stds = zip(*fits, strict=True)
    return Reference(float(np.mean(means)), float(np.mean(stds)), len(assets))


def fit_censored(splats: Splats) -> tuple[float, float]:
    """Mean and standard deviation of a normal distribution for the logits, maximum likelihood by
    expectation and maximisation (Dempster et al. 1977): infinite values lie somewhere beyond the outermost
    finite ones, or beyond where 8 bits round alpha to 0 and 255.
    """
    logits = splats.opacity_logits.astype(np.float64)
    known = logits[np.isfinite(logits)]
    above, below = int(np.count_nonzero(logits == np.inf)), int(np.count_nonzero(logits == -np.inf))
    total = len(known) + above + below
    mean, std = float(known.mean()), float(known.std())
    sums, squares = float(known.sum()), float(np.square(known).sum())
    high, low = float(known.max()), float(known.min())
    if max(high, -low) <= SATURATED_LOGIT:
        high, low = -TRANSPARENT_LOGIT, TRANSPARENT_LOGIT
    for _ in range(_ROUNDS):
        first, second = sums, squares
        for count, edge, sign in ((above, high, 1), (below, low, -1)):
            if count:
                m1, m2 = _tail_moments(mean, std, edge, sign)
                first += count * m1
                second += count * m2
        moved, spread = first / total, math.sqrt(max(second / total - (first / total) ** 2, 1e-12))
        settled = abs(moved - mean) + abs(spread - std) < _SETTLED
        mean, std = moved, spread
        if settled:
            break
    return mean, std


def _tail_moments(mean: float, std: float, edge: float, sign: int) -> tuple[float, float]:
    """First and second moment of the normal distribution beyond ``edge``, above (1) or below (-1) it."""
    z = sign * (edge - mean) / std
    share = math.erfc(z / math.sqrt(2)) / 2
    # Far out the ratio of density to share tends to z.
    hazard = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / share if share > 1e-300 else z
    m1 = mean + sign * std * hazard
    variance = std * std * (1 + z * hazard - hazard * hazard)
    return m1, variance + m1 * m1
