"""What an asset looks like in numbers: the check of every output and the comparison of canaries."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from sn17_contract.metrics import CANARY_DRIFT_THRESHOLD
from sn17_splats import Splats
from sn17_splats.convention import MAX_TRANSPARENT_SHARE, MIN_GAUSSIANS, SH_C0, TRANSPARENT_LOGIT

MIN_FINITE_SHARE: Final = 0.5

COUNT_TOLERANCE: Final = 0.20
TOLERANCES: Final[Mapping[str, float]] = {
    "logit_mean": 0.5,
    "logit_std": 0.5,
    "transparent_share": 0.05,
    "log_scale_mean": 0.25,
    "red_mean": 0.05,
    "green_mean": 0.05,
    "blue_mean": 0.05,
    "extent_x": 0.05,
    "extent_y": 0.05,
    "extent_z": 0.05,
}
"""Largest healthy difference of each statistic between two canaries of one checkpoint and hardware."""


class Finding(StrEnum):
    """What is wrong with an output; bounded, a metric label."""

    NON_FINITE = "non_finite"
    FEW_GAUSSIANS = "few_gaussians"
    TRANSPARENT = "transparent"


@dataclass(frozen=True, slots=True)
class Quality:
    """``statistics`` are of the finite gaussians; ``usable`` is false where nothing can be repaired."""

    gaussians: int
    finite_share: float
    statistics: Mapping[str, float]

    @property
    def usable(self) -> bool:
        return self.gaussians > 0 and self.finite_share >= MIN_FINITE_SHARE

    @property
    def findings(self) -> tuple[Finding, ...]:
        found = []
        if self.finite_share < 1:
            found.append(Finding.NON_FINITE)
        if self.gaussians < MIN_GAUSSIANS:
            found.append(Finding.FEW_GAUSSIANS)
        if self.statistics.get("transparent_share", 0.0) > MAX_TRANSPARENT_SHARE:
            found.append(Finding.TRANSPARENT)
        return tuple(found)


def measure(splats: Splats) -> Quality:
    """One pass over the columns; an infinite opacity is opaque or transparent, NaN is not finite."""
    n = len(splats)
    finite = ~np.isnan(splats.opacity_logits)
    for columns in (splats.positions, splats.log_scales, splats.rotations, splats.f_dc):
        # A row's sum is finite unless one of its values is not; float32 cannot overflow from sane ones.
        with np.errstate(over="ignore", invalid="ignore"):
            finite &= np.isfinite(columns.sum(axis=1))
    good = splats if finite.all() else splats.select(finite)
    if len(good) == 0:
        return Quality(n, 0.0, {})
    logits = np.clip(good.opacity_logits, -9.21, 9.21)
    rgb = 0.5 + SH_C0 * good.f_dc.mean(axis=0, dtype=np.float64)
    extent = good.positions.max(axis=0) - good.positions.min(axis=0)
    return Quality(
        n,
        len(good) / n,
        {
            "logit_mean": float(logits.mean(dtype=np.float64)),
            "logit_std": float(logits.std(dtype=np.float64)),
            "transparent_share": float((logits < TRANSPARENT_LOGIT).mean()),
            "log_scale_mean": float(good.log_scales.mean(dtype=np.float64)),
            "red_mean": float(rgb[0]),
            "green_mean": float(rgb[1]),
            "blue_mean": float(rgb[2]),
            "extent_x": float(extent[0]),
            "extent_y": float(extent[1]),
            "extent_z": float(extent[2]),
        },
    )


def digest(ply: bytes) -> str:
    """Equal exactly when the bytes are."""
    return hashlib.sha256(ply).hexdigest()


def drift(now: Quality, first: Quality) -> float:
    """How far a canary is from the first: 0 is equal, above ``CANARY_DRIFT_THRESHOLD`` is drift.

    The relative difference of the counts, or a statistic's difference as a share of its tolerance times
    the threshold, whichever is larger; anything missing or not a number is infinitely far.
    """
    if first.gaussians == 0:
        return math.inf
    worst = abs(now.gaussians / first.gaussians - 1) / COUNT_TOLERANCE
    for name, tolerance in TOLERANCES.items():
        difference = abs(now.statistics.get(name, math.nan) - first.statistics.get(name, math.nan))
        worst = max(worst, math.inf if math.isnan(difference) else difference / tolerance)
    return worst * CANARY_DRIFT_THRESHOLD
