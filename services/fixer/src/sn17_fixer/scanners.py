"""Which implementation of the pass this process uses: compiled where numba is installed, else numpy."""

from __future__ import annotations

import functools

from sn17_fixer.scan import Scanner, scan_numpy


@functools.cache
def default_scanner() -> Scanner:
    """The fastest scanner at hand."""
    return scan_numpy
