"""The opacity rule of the first design: shift a low mean to the target and add noise of the same spread."""

from __future__ import annotations

from typing import Final

import numpy as np
from sn17_splats import Splats

from sn17_fixer.model import Repair, Step

TARGET_MEAN: Final = 4.0
ACCEPTED_STD: Final = (3.0, 9.0)


def shift_with_noise(splats: Splats, *, seed: int, target: float = TARGET_MEAN) -> Repair:
    """Where the mean logit is below 0, add ``target - mean`` and normal noise of the column's own standard
    deviation; otherwise leave everything as it is.

    Expects finite logits. The report says whether the standard deviation came out within 3 to 9.
    """
    logits = splats.opacity_logits.astype(np.float64)
    mean, std = (float(logits.mean()), float(logits.std())) if len(logits) else (0.0, 0.0)
    detail: dict[str, int | float | str | bool] = {"mean": round(mean, 4), "std": round(std, 4)}
    if mean >= 0:
        return Repair(splats, Step("shift_with_noise", 0, detail))
    noise = np.random.default_rng(seed).standard_normal(len(logits)) * std
    widest = float(np.finfo(np.float32).max)
    moved = (logits + (target - mean) + noise).clip(-widest, widest).astype(np.float32)
    after = float(moved.std(dtype=np.float64))
    low, high = ACCEPTED_STD
    detail |= {
        "shift": round(target - mean, 4),
        "std_after": round(after, 4),
        "accepted": low <= after <= high,
    }
    return Repair(splats.replace(opacity_logits=moved), Step("shift_with_noise", len(logits), detail))
