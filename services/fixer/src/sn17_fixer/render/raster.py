"""The rasteriser that this installation has."""

from __future__ import annotations

import functools
import importlib.util

from sn17_fixer.render.footprints import Rasteriser
from sn17_fixer.render.raster_numpy import rasterise_numpy


@functools.cache
def default_rasteriser() -> Rasteriser:
    """The compiled one where numba is installed, else the one in numpy."""
    if importlib.util.find_spec("numba") is None:
        return rasterise_numpy
    from sn17_fixer.render.raster_numba import rasterise_numba

    return rasterise_numba
