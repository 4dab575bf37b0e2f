"""Repairs of the opacity column, each for one kind of damage that leaves its own pattern."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

from sn17_fixer.impute import local_logits
from sn17_fixer.model import CLAMP_LOGIT, Repair, Scalar, Step
from sn17_fixer.reference import Reference

#: What a column without information is set to, by measurement: the generator's assets are mostly opaque
#: inside; for others a lower constant does less harm to what was meant to be translucent.
COLLAPSED_TO: Final = 0.5
COLLAPSED_TO_TRELLIS: Final = 2.0
#: A spread like the generator's own has survived; only a spread outside is stretched.
PLAUSIBLE_STD: Final = (1.5, 4.5)
_SINGLE_PRECISION: Final = 4e-4


def invert_alpha(splats: Splats) -> Repair:
    """Alpha was stored where the logit belongs: take the logit. Exact up to the clamp at +-9.2."""
    values = splats.opacity_logits.astype(np.float64)
    edge = 1 / (1 + math.exp(CLAMP_LOGIT))
    values = values.clip(edge, 1 - edge)
    logits = (np.log(values) - np.log1p(-values)).astype(np.float32)
    return Repair(splats.replace(opacity_logits=logits), Step("invert_alpha", len(logits)))


def undo_double_activation(splats: Splats, *, clamp: float, reference: Reference) -> Repair:
    """A logit was taken of the logits: within the clamp the sigmoid gives them back.

    What ran into the clamp is known to have been above 1 or below 0 only; it becomes the mean that the
    ``reference`` has there.
    """
    logits = splats.opacity_logits.astype(np.float64)
    above, below = truncated_means(reference)
    restored = 1 / (1 + np.exp(-logits))
    top, bottom = logits >= clamp - _SINGLE_PRECISION, logits <= -clamp + _SINGLE_PRECISION
    restored[top], restored[bottom] = above, below
    detail: dict[str, Scalar] = {
        "exact": int(len(logits) - top.sum() - bottom.sum()),
        "opaque": int(top.sum()),
        "transparent": int(bottom.sum()),
    }
    fixed = splats.replace(opacity_logits=restored.astype(np.float32))
    return Repair(fixed, Step("undo_double_activation", len(logits), detail))


def truncated_means(reference: Reference) -> tuple[float, float]:
    """Mean of the reference's normal distribution above 1 and below 0."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def below(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    high = (1 - reference.mean) / reference.std
    low = -reference.mean / reference.std
    above = reference.mean + reference.std * density(high) / max(1 - below(high), 1e-12)
    return above, reference.mean - reference.std * density(low) / max(below(low), 1e-12)


def fill_collapsed(splats: Splats, *, value: float) -> Repair:
    """All opacities are the same and transparent: set them to one constant that shows the object.

    What the opacities were is lost; the constant is the best guess that holds for any object.
    """
    logits = np.full(len(splats), value, np.float32)
    return Repair(
        splats.replace(opacity_logits=logits), Step("fill_collapsed", len(splats), {"value": value})
    )


def impute_clamped(splats: Splats, *, value: float) -> Repair:
    """Part of the opacities was overwritten with ``value``: fill those in from their surroundings."""
    lost: NDArray[np.bool_] = splats.opacity_logits == np.float32(value)
    logits = splats.opacity_logits.copy()
    logits[lost] = local_logits(splats, lost)
    return Repair(
        splats.replace(opacity_logits=logits),
        Step("impute_clamped", int(np.count_nonzero(lost)), {"value": round(value, 4)}),
    )


def match_reference(splats: Splats, reference: Reference) -> Repair:
    """Bring the mean of the logits to the reference's; the spread too, where it is not plausible itself.

    Ranks survive, and no noise is added. Expects finite logits.
    """
    logits = splats.opacity_logits.astype(np.float64)
    mean, std = float(logits.mean()), float(logits.std())
    low, high = PLAUSIBLE_STD
    factor = 1.0 if low <= std <= high else reference.std / max(std, 1e-6)
    matched = ((logits - mean) * factor + reference.mean).astype(np.float32)
    detail: dict[str, Scalar] = {
        "mean": round(mean, 4),
        "std": round(std, 4),
        "factor": round(factor, 4),
        "shift": round(reference.mean - mean, 4),
    }
    return Repair(splats.replace(opacity_logits=matched), Step("match_reference", len(logits), detail))
