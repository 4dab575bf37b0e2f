"""One pass over all columns of a splat: the sums that a diagnosis is made of."""

from __future__ import annotations

import functools
import importlib.util

from sn17_fixer.scan.columns import Scanner
from sn17_fixer.scan.numpy_pass import scan_numpy

__all__ = ["default_scanner"]


@functools.cache
def default_scanner() -> Scanner:
    """The compiled pass where numba is installed, else the one in numpy."""
    if importlib.util.find_spec("numba") is None:
        return scan_numpy
    from sn17_fixer.scan.numba_pass import scan_numba

    return scan_numba
