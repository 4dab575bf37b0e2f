"""The checks that the subnet's validator makes before it renders."""

from __future__ import annotations

from typing import Final

import numpy as np
from sn17_splats import Splats, alpha

from sn17_fixer.model import Gates

MIN_GAUSSIANS: Final = 7000
MAX_TRANSPARENT_SHARE: Final = 0.8
#: The validator counts alpha below 1e-3, after SPZ stored it in 8 bits: all that rounds to 0 arrives so.
TRANSPARENT_ALPHA: Final = 0.5 / 255


def gates_of(count: int, transparent: int, identity: int) -> Gates:
    """The verdicts for ``count`` gaussians of which so many are transparent and unrotated."""
    enough = count >= MIN_GAUSSIANS
    opaque = transparent <= MAX_TRANSPARENT_SHARE * count
    vary = identity < count
    return Gates(enough, opaque, vary, enough and opaque and vary)


def check_gates(splats: Splats) -> Gates:
    """At least 7000 gaussians, at most 80 % of them transparent on arrival, not all rotations the identity.

    An alpha that is not a number counts as transparent.
    """
    visible = int(np.count_nonzero(alpha(splats.opacity_logits) >= TRANSPARENT_ALPHA))
    identity = int(np.count_nonzero((splats.rotations == np.array([1, 0, 0, 0], np.float32)).all(axis=1)))
    return gates_of(len(splats), len(splats) - visible, identity)
