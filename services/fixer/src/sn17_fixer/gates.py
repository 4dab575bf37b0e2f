"""The checks that the subnet's validator makes before it renders."""

from __future__ import annotations

from sn17_splats.convention import MAX_TRANSPARENT_SHARE, MIN_GAUSSIANS

from sn17_fixer.model import Gates


def gates_of(count: int, transparent: int, *, all_identity: bool) -> Gates:
    """The verdicts for ``count`` gaussians of which so many are transparent, and none or some are turned."""
    enough = count >= MIN_GAUSSIANS
    opaque = transparent <= MAX_TRANSPARENT_SHARE * count
    vary = not all_identity
    return Gates(enough, opaque, vary, enough and opaque and vary)
