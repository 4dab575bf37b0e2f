"""The checks that the subnet's validator makes before it renders."""

from __future__ import annotations

import math
from typing import Final

from sn17_fixer.model import Gates

MIN_GAUSSIANS: Final = 7000
MAX_TRANSPARENT_SHARE: Final = 0.8
#: The validator counts alpha below 1e-3, after SPZ stored it in 8 bits: all that rounds to 0 arrives so.
TRANSPARENT_LOGIT: Final = math.log(0.5 / 254.5)


def gates_of(count: int, transparent: int, *, all_identity: bool) -> Gates:
    """The verdicts for ``count`` gaussians of which so many are transparent, and none or some are turned."""
    enough = count >= MIN_GAUSSIANS
    opaque = transparent <= MAX_TRANSPARENT_SHARE * count
    vary = not all_identity
    return Gates(enough, opaque, vary, enough and opaque and vary)
