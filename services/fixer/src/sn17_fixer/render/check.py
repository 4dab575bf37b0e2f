"""Is the object visibly transparent? Accumulated alpha inside its own silhouette, over a few small views."""

from __future__ import annotations

from typing import Final

import numpy as np
from sn17_splats import Splats

from sn17_fixer.model import RenderCheck
from sn17_fixer.render.camera import validator_camera
from sn17_fixer.render.raster import default_rasteriser
from sn17_fixer.render.scene import project, validator_model

VIEWS: Final = (1, 5, 9, 13)
SIZE: Final = 200
#: Alpha that every gaussian is raised to for the silhouette, and how opaque a pixel of it must be.
_SOLID: Final = 0.99
_INSIDE: Final = 0.5


def check_render(splats: Splats) -> RenderCheck:
    """Render four views of 200 pixels twice, solid and as it is, and compare.

    Raises :class:`sn17_splats.SplatError` where nothing can be drawn.
    """
    model = validator_model(splats)
    solid = model.with_alphas(np.maximum(model.alphas, np.float32(_SOLID)))
    rasterise = default_rasteriser()
    seen = []
    for view in VIEWS:
        footprints = project(solid, validator_camera(view, SIZE))
        outline = 1 - rasterise(footprints, SIZE)[1]
        opacity = 1 - rasterise(footprints.with_alphas(model.alphas[footprints.index]), SIZE)[1]
        seen.append(opacity[outline > _INSIDE])
    values = np.concatenate(seen)
    if not values.size:
        return RenderCheck(0.0, 0.0)
    return RenderCheck(float(np.percentile(values, 10)), float(values.mean(dtype=np.float64)))
