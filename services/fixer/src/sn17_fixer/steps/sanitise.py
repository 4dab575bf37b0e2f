"""Make every number finite without touching one that already is."""

from __future__ import annotations

import math

import numpy as np
from sn17_splats import Splats

from sn17_fixer.impute import local_logits
from sn17_fixer.model import CLAMP_LOGIT, Repair, Step
from sn17_fixer.rows import good_rows

#: The least log-scale that SPZ stores; replaces a thickness of exactly zero.
LOWEST_LOG_SCALE = -10.0


def clamp_infinities(splats: Splats) -> Repair:
    """Opacity logits of +-inf become +-9.2: opaque and transparent stay what they are."""
    infinite = np.isinf(splats.opacity_logits)
    changed = int(np.count_nonzero(infinite))
    if changed:
        logits = np.where(
            infinite, np.copysign(np.float32(CLAMP_LOGIT), splats.opacity_logits), splats.opacity_logits
        )
        splats = splats.replace(opacity_logits=logits)
    return Repair(splats, Step("clamp_infinities", changed))


def fill_opacity(splats: Splats, *, infinite: bool = False) -> Repair:
    """Opacity logits that are NaN, with ``infinite`` those of +-inf too, are filled in from
    their surroundings."""
    missing = ~np.isfinite(splats.opacity_logits) if infinite else np.isnan(splats.opacity_logits)
    changed = int(np.count_nonzero(missing))
    if changed:
        logits = splats.opacity_logits.copy()
        logits[missing] = local_logits(splats, missing)
        splats = splats.replace(opacity_logits=logits)
    return Repair(splats, Step("fill_opacity", changed))


def drop_bad_rows(splats: Splats) -> Repair:
    """Drop gaussians whose position, scale, rotation or colour is not a number, or whose rotation is zero.

    A log-scale of -inf is a flat gaussian and kept (see :func:`clamp_scales`). Higher colour terms that are
    not finite are set to 0 instead: they cost no gaussian.
    """
    good = good_rows(splats)
    dropped = len(splats) - int(np.count_nonzero(good))
    if dropped:
        splats = splats.select(good)
    zeroed = 0
    if splats.f_rest is not None:
        bad = ~np.isfinite(splats.f_rest)
        zeroed = int(np.count_nonzero(bad.any(axis=1)))
        if zeroed:
            splats = splats.replace(f_rest=np.where(bad, np.float32(0), splats.f_rest))
    return Repair(
        splats, Step("drop_bad_rows", dropped + zeroed, {"dropped": dropped, "rest_zeroed": zeroed})
    )


def clamp_scales(splats: Splats, core_extent: float) -> Repair:
    """Bring log-scales down to half of the object's extent, and up to -10 where the thickness is zero."""
    highest = math.log(core_extent / 2) if core_extent > 0 else math.inf
    scales = splats.log_scales
    out = (scales > highest) | (scales == -np.inf)
    changed = int(np.count_nonzero(out.any(axis=1)))
    if changed:
        clamped = np.where(scales == -np.inf, np.float32(min(LOWEST_LOG_SCALE, highest)), scales)
        splats = splats.replace(log_scales=np.minimum(clamped, np.float32(highest)))
    return Repair(splats, Step("clamp_scales", changed, {"highest": round(min(highest, 1e9), 4)}))
